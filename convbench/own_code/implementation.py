"""Make people's own code an implementation: a function, a class or a module.

A function is the forward pass. A class or module has any of `forward`, `input_gradient` and
`kernel_gradient`. Each piece of own code is a runtime of its own, and therefore gets a process of
its own. `unsupported` and `prepare` run its file, so they are called in a worker only, never in the
parent.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import reduce
from types import ModuleType
from typing import Any

from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation
from convbench.own_code import calls
from convbench.own_code.calls import Call, Operand
from convbench.own_code.description import OwnCode
from convbench.own_code.files import import_code, imported
from convbench.own_code.forms import UnsupportedError
from convbench.own_code.layouts import Layouts
from convbench.own_code.prepared import PreparedOwnCode
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.own_code import OwnCodeRuntime

METHODS = {
    Pass.FORWARD: "forward",
    Pass.INPUT_GRADIENT: "input_gradient",
    Pass.KERNEL_GRADIENT: "kernel_gradient",
}
"""Name of the method or function that computes each pass."""

OTHER_LAYOUTS = (("NHWC", "HWIO"), ("NHWC", "OHWI"), ("NHWC", "OIHW"), ("NCHW", "HWIO"))
"""Layouts of arrays and kernels that code may have instead of the default (PyTorch's): Keras's
layouts first, then mixtures."""


class OwnImplementation(Implementation):
    """People's own code as an implementation.

    Raises ImplementationError if there is no such file or module.
    """

    is_own = True

    def __init__(
        self, own: OwnCode, afresh: bool = False, module: ModuleType | None = None
    ) -> None:
        """Describe the code, which is in `module` if that is given.

        `afresh` imports a new copy of its module at each use, which has its own state.
        """
        if problem := own.spelling_problem:
            raise ImplementationError(
                f"{own.code}: {problem}",
                hint="write FILE.py:NAME or package.module:NAME, where NAME is a function "
                "f(x, kernel) or a class",
            )
        if own.source is None:
            raise ImplementationError(
                f"{own.name}: there is no {own.place_kind} {own.where}",
                hint="write FILE.py:NAME or package.module:NAME, relative to this folder",
            )
        self.name = own.name
        self.runtime = OwnCodeRuntime(own.name)
        self._own = own
        self._afresh = afresh
        self._module = module

    def fresh(self) -> OwnImplementation:
        """Return the same code, whose module is imported once more."""
        return OwnImplementation(self._own, afresh=True)

    @contextmanager
    def alone(self) -> Iterator[OwnImplementation]:
        """Yield the same code in one further copy of its module, which is dropped at the end.

        Yield the code as it is if its module cannot be imported a second time.
        """
        module = None
        with suppress(Exception):
            module = import_code(self._own, afresh=True)
        if module is None:
            yield self
            return
        try:
            yield OwnImplementation(self._own, module=module)
        finally:
            sys.modules.pop(module.__name__, None)

    def other_layouts(self) -> Iterator[tuple[str, OwnImplementation]]:
        """Yield command-line options for other axes, and the same code with these axes.

        Nothing is yielded if a suite or the code itself says what its axes are, or if the code
        could not be imported.
        """
        module = imported(self._own)
        if module is None:
            return
        found = _named(self._own, module)
        keys = ("layout", "kernel_layout", "output_layout")
        if any(getattr(self._own, key) or getattr(found, key, "") for key in keys):
            return
        for layout, kernel_layout in OTHER_LAYOUTS:
            other = replace(self._own, layout=layout, kernel_layout=kernel_layout)
            yield f"--layout {layout} --kernel-layout {kernel_layout}", OwnImplementation(other)

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        """Say what the code lacks for this layer. This runs the file: call it in a worker only."""
        try:
            self._callee(pass_).call(layer, 1)
        except UnsupportedError as error:
            return error.unsupported
        return None

    def exact(self, layer: Layer, pass_: Pass) -> None:
        """Return None: whether own code only sums products is not known."""

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Return 0: the workspace of own code is not known."""
        return 0

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedOwnCode:
        callee = self._callee(pass_)
        call = callee.call(layer, threads)
        function = callee.function(layer, threads)
        return PreparedOwnCode(layer, pass_, callee.what, function, call, callee.layouts)

    def _callee(self, pass_: Pass) -> _Callee:
        """Return what computes the pass. Raises UnsupportedError if the code does not have it."""
        module = self._module or import_code(self._own, self._afresh)
        found = _named(self._own, module)
        layouts = Layouts.of(self._own, found)
        text = self._own.passes.get(pass_)
        if text is not None:
            return _Callee(found, pass_, layouts, module, text=text)
        if self._own.passes:
            raise UnsupportedError(f"its `passes` have no expression for {pass_}", ("pass",))
        method = METHODS[pass_]
        if callable(getattr(found, method, None)):
            return _Callee(found, pass_, layouts, module, method=method)
        is_function = _is_function(found)
        if not is_function and not _has_a_pass(found):
            raise _nothing_to_call(self._own, found)
        if is_function and pass_ is Pass.FORWARD:
            call = "__call__" if inspect.isclass(found) else ""
            return _Callee(found, pass_, layouts, module, method=call)
        if is_function and not _has_a_pass(found):
            raise UnsupportedError("a function gives the forward pass only", ("pass",))
        raise UnsupportedError(f"it has no {method}", ("pass",))


def _has_a_pass(found: object) -> bool:
    return any(callable(getattr(found, method, None)) for method in METHODS.values())


def _is_function(found: object) -> bool:
    """Tell whether what was found can be called. Of a class, tell whether its objects can be."""
    if inspect.isclass(found):  # calling the class itself only makes an object
        return any("__call__" in vars(base) for base in found.__mro__)
    return callable(found)


def _nothing_to_call(own: OwnCode, found: object) -> ImplementationError:
    passes = [*METHODS.values()]
    listed = f"{', '.join(passes[:-1])} and {passes[-1]}"
    if not inspect.isclass(found) and not inspect.ismodule(found):
        return ImplementationError(
            f"{own.code}: {own.attribute} is a value of type {type(found).__name__}, which cannot "
            "be called",
            hint=f"expected a function, or a class or module that has any of {listed}",
        )
    what = "class" if inspect.isclass(found) else "module"
    close = [
        f"{near[0]} where it has {known}"
        for known in vars(found)
        if known not in passes and (near := get_close_matches(known, passes, n=1, cutoff=0.8))
    ]
    return ImplementationError(
        f"{own.code}: the {what} {found.__name__} has none of {listed}",
        hint=f"did you mean {' and '.join(close)}?"
        if close
        else "write one of them, or say how to call it with `passes` in a suite "
        "(docs/your-own-convolution.md)",
    )


def _named(own: OwnCode, module: ModuleType) -> Any:
    """Return what NAME is in a module. Without a NAME it is the module itself, if it has a pass, or
    else the one thing that it defines."""
    where, name = own.where, own.attribute
    if name:
        try:
            return reduce(getattr, name.split("."), module)
        except AttributeError:
            known = _defined(module)
            close = get_close_matches(name, known, n=1)
            raise ImplementationError(
                f"{where} has no {name}",
                hint=(f"did you mean {close[0]}? " if close else "")
                + f"It defines {', '.join(known) or 'nothing that can be called'}",
            ) from None
    if _has_a_pass(module):
        return module
    known = _defined(module)
    if len(known) == 1:
        return getattr(module, known[0])
    raise ImplementationError(
        f"{where} has no forward, input_gradient or kernel_gradient, and defines "
        f"{', '.join(known) or 'nothing that can be called'}",
        hint=f"name the one that is meant: {where}:NAME",
    )


def _defined(module: ModuleType) -> list[str]:
    """Return the names of public functions and classes that the module itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]


@dataclass(frozen=True)
class _Callee:
    """What computes a pass: the object that was named, a method of it, or an expression."""

    found: Any
    pass_: Pass
    layouts: Layouts
    module: ModuleType
    method: str = ""
    text: str | None = None

    @property
    def what(self) -> str:
        """Name of the function or expression in messages."""
        if self.text is not None:
            return f"the expression {self.text!r}"
        if isinstance(self.found, ModuleType):
            return self.method
        name = getattr(self.found, "__name__", type(self.found).__name__)
        return f"{name}.{self.method}" if self.method else str(name)

    def call(self, layer: Layer, threads: int) -> Call:
        """Return what the pass is called with. Raises UnsupportedError if that lacks something that
        the layer needs."""
        if axes := self.layouts.left_out(layer):
            raise UnsupportedError(f"its layout has no axis for {axes}", ("layout",))
        init = self._init(layer, threads)
        handled = {*init.keywords, *(["layer"] if init.arguments else [])}
        values = _values(layer, threads, self.layouts)
        return calls.bind(self.what, self._parameters(), layer, self.pass_, values, handled)

    def function(self, layer: Layer, threads: int) -> Callable[..., object]:
        """Return the function to call. For a class, it is a method of an object made for the layer,
        or the object itself."""
        found = self.found
        if inspect.isclass(found):
            init = self._init(layer, threads)
            found = found(*init.arguments, **init.keywords)
        if self.text is None:
            function: Callable[..., object] = getattr(found, self.method) if self.method else found
            return function
        attributes = {} if inspect.isfunction(found) else _attributes(found, self.text)
        return calls.expression(self.text, self.pass_, {**vars(self.module), **attributes})

    def _init(self, layer: Layer, threads: int) -> Call:
        """Return the call that makes an object of a class; for anything else, an empty call."""
        if not inspect.isclass(self.found):
            return Call((), {})
        is_python = inspect.isfunction(inspect.getattr_static(self.found, "__init__"))
        found = calls.parameters(self.found) if is_python else []
        values = _values(layer, threads, self.layouts)
        return calls.bind_init(self.found.__name__, found, layer, values)

    def _parameters(self) -> list[inspect.Parameter]:
        if self.text is not None:
            return calls.parameters(calls.expression(self.text, self.pass_, {}))
        if not self.method:
            return calls.parameters(self.found)
        found = calls.parameters(getattr(self.found, self.method))
        static = inspect.getattr_static(self.found, self.method)
        is_bound = isinstance(static, staticmethod | classmethod) or not inspect.isclass(self.found)
        return found if is_bound else found[1:]


def _attributes(found: object, expression: str) -> dict[str, Any]:
    """Return the attributes of an object that an expression names. Others are not read, since a
    property may compute something."""
    return {
        name: getattr(found, name) for name in calls.names_in(expression) if hasattr(found, name)
    }


def _values(layer: Layer, threads: int, layouts: Layouts) -> dict[str, object]:
    """Return all that code can be given, by name. Operands stand for arrays."""
    settings = {
        "filters": layer.filters,
        "kernel_size": layer.kernel_size,
        "use_bias": layer.use_bias,
        "input_shape": layouts.input.shape(layer.result_shape(Pass.INPUT_GRADIENT)),
        "batch_size": layer.batch_size,
        "dtype": layer.dtype,
        "layer": layer,
    }
    keywords = {
        "bias": Operand("bias") if layer.use_bias else None,
        "strides": layer.strides,
        "padding": layer.pads,
        "dilation_rate": layer.dilation_rate,
        "groups": layer.groups,
        "threads": threads,
    }
    arrays = {name: Operand(name) for name in ("x", "kernel", "output_gradient")}
    return {**settings, **keywords, **arrays}
