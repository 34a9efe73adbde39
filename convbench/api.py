"""Offer the fast convolution to your own code: `conv2d`, its two gradients, and `plan`.

As in Keras, arrays are NHWC and kernels are (kernel height, kernel width, channels/groups,
filters). All arrays of a call have one dtype, float32 or float64, and any order in memory. Results
are C-contiguous and belong to the caller. Arrays or settings that make no convolution raise
OperandError, which is a ValueError.

The settings are those of Keras Conv2D: `strides` and `dilation_rate` are an integer or (height,
width), and `padding` is "valid", "same" or ((top, bottom), (left, right)). `threads` is the number
of threads; None takes as many as BLAS would use. `implementation` names an implementation of
convbench that runs on NumPy.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convbench.errors import LayerError, OperandError
from convbench.implementations.contract import Implementation, Prepared
from convbench.implementations.numpy.shared.threads import blas
from convbench.implementations.registry import REGISTRY
from convbench.problem.layer import ITEMSIZE, Dtype, Layer, Pads, Pair, Pass
from convbench.problem.layer import Padding as LayerPadding
from convbench.problem.operands import LentOperands

Array = NDArray[np.floating[Any]]
Size = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]

KEPT_PLANS = 32
"""Number of plans that `conv2d` and its gradients keep. The least recently used one goes first."""

_AXES = {
    "x": ("batch", "height", "width", "channels"),
    "kernel": ("kernel height", "kernel width", "channels/groups", "filters"),
    "output_gradient": ("batch", "output height", "output width", "filters"),
    "bias": ("filters",),
}


def conv2d(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: Size = 1,
    padding: Padding = "valid",
    dilation_rate: Size = 1,
    groups: int = 1,
    threads: int | None = None,
    implementation: str = "auto",
) -> Array:
    """Return the convolution (cross-correlation) of `x`, (batch, height, width, channels).

    `kernel` is (kernel height, kernel width, channels/groups, filters), and `bias` is (filters,).
    The result is (batch, output height, output width, filters).
    """
    given = _arrays(x=x, kernel=kernel, bias=bias)
    settings = _settings(strides, padding, dilation_rate, groups)
    layer = _layer(given["x"].shape, given["kernel"].shape, bias is not None, given["x"], settings)
    return _kept_plan(layer, Pass.FORWARD, threads, implementation)._run(given)


def conv2d_input_gradient(
    output_gradient: ArrayLike,
    kernel: ArrayLike,
    input_shape: Sequence[int],
    *,
    strides: Size = 1,
    padding: Padding = "valid",
    dilation_rate: Size = 1,
    groups: int = 1,
    threads: int | None = None,
    implementation: str = "auto",
) -> Array:
    """Return the gradient to the input, an array of shape `input_shape`.

    `output_gradient` is (batch, output height, output width, filters), and `input_shape` is (batch,
    height, width, channels). `input_shape` must be given, since inputs of several shapes can have
    outputs of the same shape.
    """
    given = _arrays(output_gradient=output_gradient, kernel=kernel)
    settings = _settings(strides, padding, dilation_rate, groups)
    layer = _layer(input_shape, given["kernel"].shape, False, given["kernel"], settings)
    return _kept_plan(layer, Pass.INPUT_GRADIENT, threads, implementation)._run(given)


def conv2d_kernel_gradient(
    x: ArrayLike,
    output_gradient: ArrayLike,
    kernel_size: Size,
    *,
    strides: Size = 1,
    padding: Padding = "valid",
    dilation_rate: Size = 1,
    groups: int = 1,
    threads: int | None = None,
    implementation: str = "auto",
) -> Array:
    """Return the gradient to the kernel, summed over the batch, without the gradient to a bias.

    `x` is (batch, height, width, channels), and `output_gradient` is (batch, output height, output
    width, filters). The result is (kernel height, kernel width, channels/groups, filters).
    """
    given = _arrays(x=x, output_gradient=output_gradient)
    settings = _settings(strides, padding, dilation_rate, groups)
    channels, filters = given["x"].shape[3], given["output_gradient"].shape[3]
    _divides(settings["groups"], channels, filters)
    shape = (*_pair("kernel_size", kernel_size), channels // settings["groups"], filters)
    layer = _layer(given["x"].shape, shape, False, given["x"], settings)
    return _kept_plan(layer, Pass.KERNEL_GRADIENT, threads, implementation)._run(given)


def plan(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    pass_: Pass | str = Pass.FORWARD,
    use_bias: bool = False,
    dtype: str = "float32",
    strides: Size = 1,
    padding: Padding = "valid",
    dilation_rate: Size = 1,
    groups: int = 1,
    threads: int | None = None,
    implementation: str = "auto",
) -> Plan:
    """Plan one pass of one convolution: choose the algorithm and allocate memory for many calls.

    `input_shape` is (batch, height, width, channels), and `kernel_shape` is (kernel height, kernel
    width, channels/groups, filters). `pass_` is "forward", "input-gradient" or "kernel-gradient".
    """
    if pass_ not in list(Pass):
        raise OperandError(f"pass_: found {pass_!r}, expected one of {', '.join(Pass)}")
    if dtype not in ITEMSIZE:
        raise OperandError(f"dtype: found {dtype!r}, expected one of {', '.join(ITEMSIZE)}")
    settings = _settings(strides, padding, dilation_rate, groups)
    layer = _layer(input_shape, kernel_shape, use_bias, np.empty(0, dtype), settings)
    return Plan(layer, Pass(pass_), threads, implementation)


class Plan:
    """A planned pass, which is called like a function.

    The calls are `plan(x, kernel)` or `plan(x, kernel, bias)` for a forward pass,
    `plan(output_gradient, kernel)` for an input gradient, and `plan(x, output_gradient)` for a
    kernel gradient. Several threads may call one plan. They take turns, because they share its
    buffers, so threads that are to compute side by side need a plan each. Until its next call, a
    plan keeps a reference to its arguments and to its last result. If nobody else refers to that
    result any more, the next call overwrites it.
    """

    def __init__(self, layer: Layer, pass_: Pass, threads: int | None, implementation: str) -> None:
        if threads is not None and (not isinstance(threads, int | np.integer) or threads < 1):
            raise OperandError(
                f"threads: found {threads!r}, expected None or an integer of at least 1"
            )
        found = _on_numpy(implementation)
        if reason := found.unsupported(layer, pass_):
            raise OperandError(
                f"{implementation} cannot compute this ({layer.geometry()}): {reason}",
                hint='implementation="auto" chooses an implementation that can',
            )
        self.layer = layer
        self.pass_ = pass_
        self.threads = threads
        self._lock = threading.Lock()
        with _blas_limited(threads):
            self._prepared: Prepared = found.prepare(layer, pass_, threads or _blas_threads())
        self.ledger = self._prepared.ledger
        self.algorithm = self.ledger.took or implementation
        self._takes = {
            Pass.FORWARD: ("x", "kernel"),
            Pass.INPUT_GRADIENT: ("output_gradient", "kernel"),
            Pass.KERNEL_GRADIENT: ("x", "output_gradient"),
        }[pass_]

    def __repr__(self) -> str:
        return f"<convbench plan: {self.pass_} {self.layer.geometry()}, by {self.algorithm}>"

    def __call__(self, first: ArrayLike, second: ArrayLike, bias: ArrayLike | None = None) -> Array:
        """Return the result, C-contiguous. The array belongs to the caller."""
        if (bias is not None) != (self.layer.use_bias and self.pass_ is Pass.FORWARD):
            raise OperandError(
                f"bias: {'none was given' if bias is None else 'one was given'}, but the plan is "
                f"for {self.pass_} with use_bias={self.layer.use_bias}",
                hint="plan(..., use_bias=True) makes a plan for a forward pass that adds a bias",
            )
        name, other = self._takes
        return self._run(_arrays(**{name: first, other: second, "bias": bias}))

    def _run(self, given: dict[str, Array]) -> Array:
        shapes = {
            "x": self.layer.result_shape(Pass.INPUT_GRADIENT),
            "kernel": self.layer.kernel_shape,
            "output_gradient": self.layer.result_shape(Pass.FORWARD),
            "bias": (self.layer.filters,),
        }
        for name, array in given.items():
            if array.shape != shapes[name]:
                raise OperandError(f"{name}: its shape is {array.shape}, expected {shapes[name]}")
            if array.dtype != self.layer.dtype:
                raise OperandError(
                    f"{name}: its dtype is {array.dtype}, but the plan is for {self.layer.dtype}",
                    hint=f"convert {name} with .astype, or make a plan for {array.dtype}",
                )
        operands = LentOperands(
            given.get("x"), given.get("kernel"), given.get("bias"), given.get("output_gradient")
        )
        prepared = self._prepared
        with self._lock, _blas_limited(self.threads):
            prepared.load(operands)
            result = np.ascontiguousarray(prepared.to_numpy(prepared.run()))
            shared = (*prepared.buffers, *given.values())
            if any(np.may_share_memory(result, array) for array in shared):
                result = result.copy()
        return result


@functools.lru_cache(maxsize=KEPT_PLANS)
def _kept_plan(layer: Layer, pass_: Pass, threads: int | None, implementation: str) -> Plan:
    return Plan(layer, pass_, threads, implementation)


def _on_numpy(name: str) -> Implementation:
    """Return the implementation of that name. Raises ImplementationError for an unknown name."""
    found = REGISTRY.get(name)
    if not found.runtime.is_part_of_any_process:
        raise OperandError(
            f"implementation: {name} does not run on NumPy",
            hint="take loop, auto or an implementation that auto chooses from; only convbench run "
            "can use the others",
        )
    return found


# What was given


def _arrays(**given: ArrayLike | None) -> dict[str, Array]:
    """Return the arrays that are not None: C-contiguous, aligned, all of one float dtype."""
    arrays: dict[str, Array] = {}
    for name, value in given.items():
        if value is None:
            continue
        array = np.asarray(value)
        axes = _AXES[name]
        if array.ndim != len(axes):
            raise OperandError(
                f"{name}: its shape is {array.shape}, expected {len(axes)} axes ({', '.join(axes)})"
            )
        if array.dtype not in (np.float32, np.float64):
            raise OperandError(
                f"{name}: its dtype is {array.dtype}, expected float32 or float64",
                hint=f"{name}.astype(np.float32)",
            )
        arrays[name] = np.require(array, requirements=("C", "A"))
    (first, dtype), *others = [(name, array.dtype) for name, array in arrays.items()]
    for name, other in others:
        if other != dtype:
            raise OperandError(
                f"{first} is {dtype} and {name} is {other}, expected one dtype",
                hint=f"{name}.astype(np.{dtype})",
            )
    return arrays


def _settings(strides: Size, padding: Padding, dilation_rate: Size, groups: int) -> dict[str, Any]:
    if not isinstance(groups, int | np.integer) or groups < 1:
        raise OperandError(f"groups: found {groups!r}, expected an integer of at least 1")
    return {
        "strides": _pair("strides", strides),
        "padding": _padding(padding),
        "dilation_rate": _pair("dilation_rate", dilation_rate),
        "groups": int(groups),
    }


def _pair(name: str, value: Size) -> Pair:
    values = (value, value) if isinstance(value, int | np.integer) else value
    expected = f"{name}: found {value!r}, expected one integer or two, each at least 1"
    return cast(Pair, _integers(values, 2, expected))


def _integers(values: Any, count: int, expected: str, least: int = 1) -> tuple[int, ...]:
    """Return `values` as `count` integers of at least `least`.

    Raises OperandError with the message `expected` if `values` is anything else.
    """
    try:
        found = tuple(values)
    except TypeError:
        raise OperandError(expected) from None
    integers = all(isinstance(value, int | np.integer) and value >= least for value in found)
    if len(found) != count or not integers:
        raise OperandError(expected)
    return tuple(int(value) for value in found)


def _padding(value: Padding) -> LayerPadding:
    if value == "valid":
        return "valid"
    if value == "same":
        return "same"
    expected = (
        f"padding: found {value!r}, expected 'valid', 'same' or ((top, bottom), (left, right)), "
        "none of them negative"
    )
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise OperandError(expected)
    return cast(Pads, tuple(_integers(pair, 2, expected, least=0) for pair in value))


def _divides(groups: int, channels: int, filters: int) -> None:
    if channels % groups or filters % groups:
        raise OperandError(
            f"groups: {groups} must divide the {channels} channels and the {filters} filters"
        )


def _layer(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    use_bias: bool,
    like: Array,
    settings: dict[str, Any],
) -> Layer:
    """Return the layer, with the dtype of `like`. Raises OperandError if no such layer exists."""
    shapes = {"input_shape": (input_shape, "x"), "kernel_shape": (kernel_shape, "kernel")}
    batch, *image = _integers(input_shape, 4, _expected_shape(*shapes["input_shape"]))
    kh, kw, per_group, filters = _integers(
        kernel_shape, 4, _expected_shape(*shapes["kernel_shape"])
    )
    groups = settings["groups"]
    if per_group * groups != image[2]:
        raise OperandError(
            f"kernel: it is for {per_group} channels in each of {groups} groups, but the input "
            f"has {image[2]} channels",
            hint="kernels are (kernel height, kernel width, channels/groups, filters), inputs "
            "(batch, height, width, channels)",
        )
    try:
        return Layer(
            "api",
            (image[0], image[1], image[2]),
            filters,
            (kh, kw),
            use_bias=use_bias,
            batch_size=batch,
            dtype=cast(Dtype, like.dtype.name),
            **settings,
        )
    except LayerError as error:
        raise OperandError(error.message, hint=error.hint) from None


def _expected_shape(found: Sequence[int], of: str) -> str:
    axes = ", ".join(_AXES[of])
    return f"the shape of {of}: found {tuple(found)}, expected ({axes}), each at least 1"


# Threads of BLAS


_LIMITING = threading.RLock()
"""Lock for setting BLAS's number of threads, which the whole process shares."""


def _blas_threads() -> int:
    """Return the number of threads that BLAS would use now."""
    return max((pool["num_threads"] for pool in blas().info()), default=1)


@contextlib.contextmanager
def _blas_limited(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    with _LIMITING, blas().limit(limits=threads):
        yield
