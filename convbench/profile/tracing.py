"""Trace what code does to arrays: every call of NumPy, its time, its memory, and its line.

The operands go in as `Traced`, a subclass of ndarray. NumPy hands every ufunc and function on such
arrays to the subclass (NEP 13 and NEP 18), and the results are traced in turn, so that a trace
follows code that nobody has seen before. Each call is timed in its place, with the caches as the
code left them; the cost of tracing lies between the calls. A trace does not see compiled code that
takes the memory of an array (Numba, C).
"""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from types import BuiltinFunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from convbench.profile.operations import INTO_FIRST, LEAVES, Example, Operation, operation_of

MAX_CALLS = 200_000
"""Number of NumPy calls at which a trace stops."""

CREATORS = ("zeros", "empty", "ones", "full", "array", "asarray", "ascontiguousarray")
"""Functions that NumPy hands to no subclass: their arguments are not arrays or lose their class."""


class TooManyCallsError(BaseException):
    """A trace has MAX_CALLS calls. An `except Exception` in the code does not catch this error."""


class Call(NamedTuple):
    """A call of NumPy; `operation` is an index into the operations of its trace.

    Calls that ran at the same time, in several threads, share that time equally, so that the
    `seconds` of all calls add up to the time that passed.
    """

    operation: int
    seconds: float


class _Made(NamedTuple):
    operation: int
    start: float
    end: float
    thread: int


@dataclass
class Trace:
    """The calls of NumPy in one run of the code, in their order if one thread made them.

    `examples` has the first call of each operation, unless the trace `keeps` none. `last_written`
    has, by the address of an array's memory, the operation that wrote there last.
    """

    operations: list[Operation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    examples: dict[int, Example] = field(default_factory=dict)
    last_written: dict[int, int] = field(default_factory=dict)
    result: object = None
    keeps: bool = True
    threads: int = 1

    @property
    def names(self) -> list[tuple[str, tuple[str, int]]]:
        """Name and line of each call, in order, by which traces of two layers are compared."""
        made = (self.operations[call.operation] for call in self.calls)
        return [(operation.name, operation.line) for operation in made]


class _Recorder:
    """A recorder of the calls of every thread, but not of the calls that NumPy itself makes."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self.is_theirs: Callable[[str], bool] = lambda file: True
        self.keys: dict[Any, int] = {}
        self.made: list[_Made] = []
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    @property
    def listens(self) -> bool:
        return self.trace is not None and not getattr(self._of_thread, "is_within", False)

    def record(
        self,
        name: str,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        """Make the call on plain arrays, record it, and return its result as traced arrays."""
        arguments, keywords = _plain(arguments), _plain(keywords)
        trace = self.trace if self.listens else None
        if trace is None:
            return _traced(call(*arguments, **keywords))
        self._of_thread.is_within = True
        try:
            start = time.perf_counter()
            result = call(*arguments, **keywords)
            end = time.perf_counter()
        finally:
            self._of_thread.is_within = False
        with self._lock:
            made = _Made(0, start, end, threading.get_ident())
            self._note(trace, name, call, arguments, keywords, result, made)
        return _traced(result)

    def _note(
        self,
        trace: Trace,
        name: str,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        result: Any,
        made: _Made,
    ) -> None:
        if len(self.made) >= MAX_CALLS:
            raise TooManyCallsError
        line = self._line()
        given = list(_arrays(arguments))
        out = list(_arrays(keywords.get("out")))
        target = given[0] if name in INTO_FIRST else (out[0] if out else result)
        shape = getattr(target, "shape", ())
        key = (
            name,
            line,
            tuple((a.shape, a.dtype.char, a.strides) for a in given),
            shape,
            bool(out),
        )
        index = self.keys.get(key)
        if index is None:
            index = self.keys[key] = len(trace.operations)
            trace.operations.append(operation_of(name, line, given, out, result, target))
            if trace.keeps:
                trace.examples[index] = Example(call, arguments, keywords, target)
        self.made.append(made._replace(operation=index))
        if isinstance(target, np.ndarray):
            trace.last_written[address(target)] = index

    def _line(self) -> tuple[str, int]:
        frame = sys._getframe(3)
        while frame.f_back is not None and not self.is_theirs(frame.f_code.co_filename):
            frame = frame.f_back
        return frame.f_code.co_filename, frame.f_lineno


_recorder = _Recorder()


class Traced(np.ndarray):
    """An array that records what is done to it."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__ + ("" if method == "__call__" else f".{method}")
        out = kwargs.get("out")
        found = _recorder.record(name, getattr(ufunc, method), inputs, kwargs)
        if out is not None and len(out) == 1:
            return out[0]
        return found

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        implementation = getattr(func, "_implementation", func)
        is_leaf = func.__name__ in LEAVES or isinstance(implementation, BuiltinFunctionType)
        if is_leaf:
            return _recorder.record(func.__name__, func, args, kwargs)
        return _traced(super().__array_function__(func, types, args, kwargs))

    def __getitem__(self, index: Any) -> Any:
        return _recorder.record("getitem", np.ndarray.__getitem__, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        _recorder.record("setitem", np.ndarray.__setitem__, (self, index, value), {})

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("copy", np.ndarray.copy, (self, *args), kwargs)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("astype", np.ndarray.astype, (self, *args), kwargs)

    def reshape(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("reshape", np.ndarray.reshape, (self, *args), kwargs)

    def ravel(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("ravel", np.ndarray.ravel, (self, *args), kwargs)

    def flatten(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("flatten", np.ndarray.flatten, (self, *args), kwargs)

    def fill(self, *args: Any, **kwargs: Any) -> None:
        _recorder.record("fill", np.ndarray.fill, (self, *args), kwargs)

    def dot(self, *args: Any, **kwargs: Any) -> Any:
        return _recorder.record("dot", np.ndarray.dot, (self, *args), kwargs)


def trace(run: Callable[[], object], is_theirs: Callable[[str], bool], keep: bool = True) -> Trace:
    """Return what one call of `run` does to arrays that are Traced.

    `is_theirs` tells whether a file holds the code whose lines are recorded. The trace holds
    examples and the result only with `keep`, because arrays that live on change which memory later
    arrays get. Raises TooManyCallsError.
    """
    found = Trace(keeps=keep)
    _recorder.keys.clear()
    _recorder.made.clear()
    _recorder.is_theirs = functools.cache(is_theirs)
    with _creators_traced():
        _recorder.trace = found
        try:
            result = run()
            found.result = result if keep else None
        finally:
            _recorder.trace = None
    found.calls = _calls(_recorder.made, found.operations)
    found.threads = len({one.thread for one in _recorder.made})
    return found


def _calls(made: list[_Made], operations: list[Operation]) -> list[Call]:
    """Return the calls in their order, or by name and line if several threads made them.

    The order of calls in several threads is chance.
    """
    calls = [Call(one.operation, s) for one, s in zip(made, _shares(made), strict=True)]
    if len({one.thread for one in made}) > 1:
        calls.sort(key=lambda c: (operations[c.operation].name, operations[c.operation].line))
    return calls


WAITS_S = 1e-4
"""Seconds without a call after which a thread is taken to wait for other threads. A thread that
makes its next call sooner is at work, held up only by the tracing."""


def _shares(made: list[_Made]) -> list[float]:
    """Return the seconds of each call, divided at each moment by the number of threads at work."""
    if len({one.thread for one in made}) <= 1:
        return [one.end - one.start for one in made]
    by_thread: dict[int, list[int]] = {}
    for index, one in enumerate(made):
        by_thread.setdefault(one.thread, []).append(index)
    moments: list[tuple[float, int, int, int]] = []  # when, change in threads and calls, index
    for calls in by_thread.values():
        for index, following in zip_longest(calls, calls[1:]):
            one = made[index]
            left = made[following].start if following is not None else math.inf
            at_work_until = left if left - one.end < WAITS_S else one.end
            moments += [(one.start, 1, 1, index), (one.end, 0, -1, index)]
            moments.append((at_work_until, -1, 0, index))
    shares = [0.0] * len(made)
    running: set[int] = set()
    at_work, before = 0, 0.0
    for moment, threads, begins, index in sorted(moments):
        for each in running:
            shares[each] += (moment - before) / max(at_work, 1)
        at_work, before = at_work + threads, moment
        if begins > 0:
            running.add(index)
        elif begins < 0:
            running.discard(index)
    return shares


def give_traced(prepared: Any) -> None:
    """Turn the arrays of a prepared object, and of the user's object in it, into Traced ones."""
    seen: set[int] = set()

    def walk(value: Any, depth: int) -> Any:
        if type(value) is np.ndarray:
            return value.view(Traced)
        if depth == 0 or id(value) in seen:
            return value
        if isinstance(value, tuple) and type(value) is tuple:
            walked = tuple(walk(each, depth - 1) for each in value)
            return walked if any(a is not b for a, b in zip(walked, value, strict=True)) else value
        if isinstance(value, list):
            value[:] = [walk(each, depth - 1) for each in value]
        elif isinstance(value, dict):
            value.update({key: walk(each, depth - 1) for key, each in value.items()})
        elif hasattr(value, "__dict__") and not isinstance(value, ModuleType | type):
            seen.add(id(value))
            owner = getattr(value, "__self__", None)
            if owner is not None:
                walk(owner, depth)
            elif not callable(value) or type(value).__module__ != "builtins":
                for name, each in list(vars(value).items()):
                    changed = walk(each, depth - 1)
                    if changed is not each:
                        with suppress(AttributeError):  # frozen objects are ours, not the code's
                            setattr(value, name, changed)
        elif (owner := getattr(value, "__self__", None)) is not None:
            walk(owner, depth)
        return value

    walk(prepared, 4)


@contextmanager
def _creators_traced() -> Iterator[None]:
    """Make NumPy's creators return traced arrays, under every name that a module has for them."""
    creators = {id(getattr(np, name)): _creator(name, getattr(np, name)) for name in CREATORS}
    strided = np.lib.stride_tricks.as_strided
    viewer = _viewer(strided)
    places: list[tuple[dict[str, Any], str, Any, Any]] = []
    for module in list(sys.modules.values()):
        spelled = getattr(module, "__dict__", {})
        is_numpys = getattr(module, "__name__", "numpy").startswith("numpy") and module is not np
        for key, value in list(spelled.items()):
            if value is strided:
                places.append((spelled, key, strided, viewer))
            elif id(value) in creators and not is_numpys:
                places.append((spelled, key, value, creators[id(value)]))
    for spelled, key, _, replacement in places:
        spelled[key] = replacement
    try:
        yield
    finally:
        for spelled, key, original, _ in places:
            spelled[key] = original


def _creator(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create(*args: Any, **kwargs: Any) -> Any:
        if not _recorder.listens:
            return original(*args, **kwargs)
        return _recorder.record(name, original, args, kwargs)

    return create


def _viewer(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def view(*args: Any, **kwargs: Any) -> Any:
        return _traced(original(*_plain(args), **_plain(kwargs)))

    return view


def _plain(value: Any) -> Any:
    """Return the value with its traced arrays made plain."""
    if isinstance(value, Traced):
        return value.view(np.ndarray)
    if type(value) in (tuple, list):
        return type(value)(_plain(each) for each in value)
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    return value


def _traced(value: Any) -> Any:
    if type(value) is np.ndarray and value.ndim:
        return value.view(Traced)
    if type(value) is tuple:
        return tuple(_traced(each) for each in value)
    return value


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)


def address(array: np.ndarray[Any, Any]) -> int:
    """Return the address of the memory that an array is, or is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return int(array.__array_interface__["data"][0])
