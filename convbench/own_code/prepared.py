"""Call people's own code with its operands in its layouts, and turn its result into ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Ledger, WrongResultError
from convbench.own_code.calls import Call
from convbench.own_code.layouts import AXES, Layout, Layouts
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands

Array = NDArray[Any]


class PreparedOwnCode:
    """A function of own code and what it is called with.

    The arrays stay the same from one load to the next. Code that caches results by the identity of
    an array, and not by its values, is therefore found out.
    """

    buffers: tuple[Array, ...] = ()

    def __init__(
        self,
        layer: Layer,
        pass_: Pass,
        what: str,
        function: Callable[..., object],
        call: Call,
        layouts: Layouts,
    ) -> None:
        self._what, self._function, self._call = what, function, call
        self._layouts = layouts
        self._result_layout = layouts.result(pass_)
        self._result_shape = self._result_layout.shape(layer.result_shape(pass_))
        self._arrays: dict[str, Array] = {}
        self.ledger = Ledger(
            ("all that the function does", "conversion of its result, if that is not an array"),
            (
                f"copy of the operands into {layouts.input.letters} and {layouts.kernel.letters}",
                "import of the file, and creation of an object if the code is a class",
            ),
        )

    @property
    def letters(self) -> dict[str, str]:
        return {
            "input": self._layouts.input.letters,
            "kernel": self._layouts.kernel.letters,
            "output_gradient": self._layouts.output.letters,
            "result": self._result_layout.letters,
        }

    def load(self, operands: Operands) -> None:
        self._loaded = operands
        for name, array in self._in_its_layout(operands):
            kept = self._arrays.setdefault(name, np.empty_like(array))
            kept.flags.writeable = True  # the code may have made the array read-only
            kept[...] = array
        call = self._call.filled(self._arrays)
        self._arguments, self._keywords = call.arguments, call.keywords

    def _in_its_layout(self, operands: Operands) -> Iterator[tuple[str, Array]]:
        given = {
            "x": (operands.input, self._layouts.input),
            "kernel": (operands.kernel, self._layouts.kernel),
            "output_gradient": (operands.output_gradient, self._layouts.output),
            "bias": (operands.bias, Layout("O", "O")),
        }
        for name, (array, layout) in given.items():
            if array is not None:
                yield name, layout.to_code(array)

    def run(self) -> object:
        result = self._function(*self._arguments, **self._keywords)
        return result if isinstance(result, np.ndarray) else _array(result, self._result_shape)

    def to_numpy(self, result: object) -> Array:
        """Return the result in our layout. Raises WrongResultError for a wrong type or shape."""
        axes = ", ".join(AXES[letter] for letter in self._result_layout.letters)
        expected = f"{self._result_shape}, that is ({axes})"
        if not isinstance(result, np.ndarray):
            found = _described(result)
            message = f"{self._what} returns {found}, expected one array of shape {expected}"
            raise WrongResultError(message, np.array(found))
        array: Array = np.asarray(result)  # a subclass may override what is called here
        if array.dtype.kind == "c" and not array.imag.any():
            array = array.real
        if array.dtype.kind not in "fiub":
            message = f"{self._what} returns an array of dtype {array.dtype}, expected floats"
            if array.dtype.kind == "c":
                largest = np.abs(array.imag).max()
                message += f": imaginary parts are as large as {largest:.3g}, not zero"
            raise WrongResultError(message, array)
        if array.shape != self._result_shape:
            message = f"the result has shape {array.shape}, expected {expected}"
            raise WrongResultError(message, array)
        return self._result_layout.to_ours(array)

    def modified(self) -> tuple[str, ...]:
        """Return the names of the operands that no longer are what was loaded."""
        return tuple(
            name
            for name, array in self._in_its_layout(self._loaded)
            if not np.array_equal(array, self._arrays[name])
        )


def _array(result: object, expected: tuple[int, ...]) -> object:
    """Convert a result that is no array, such as nested lists. What cannot be one stays unchanged.

    A tuple counts as several results, unless it has the expected shape.
    """
    is_sequence = isinstance(result, list | tuple)
    try:
        array = np.asarray(result)
    except ValueError:
        if is_sequence:  # its items differ in length
            return result
        raise
    is_no_array = array.dtype.kind == "O" and (is_sequence or array.ndim == 0)
    is_several = isinstance(result, tuple) and array.shape != expected
    return result if is_no_array or is_several else array


def _described(result: object) -> str:
    if result is None:
        return "None"
    kind = type(result).__name__
    size = f" of {len(result)}" if isinstance(result, list | tuple) else ""
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}{size}"
