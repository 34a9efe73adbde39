"""Define what a runtime is: all that differs between NumPy, TensorFlow and others of their kind.

A worker process serves one runtime. The runtime says whether it is installed, which variables must
be set before its import, how its threads are capped, and which memory meters see its arrays.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from convbench.machine.cautions import unmeasured, unset
from convbench.machine.description import Caution, installed_version

Method = Literal["memray", "tracemalloc", "rss"]
"""Methods of metering memory: they count malloc, Python's own allocators, or resident pages."""


@dataclass(frozen=True)
class Missing:
    """Something that is not installed, under a name that a reader knows, and how to install it."""

    what: str
    install: str


@dataclass(frozen=True)
class Meters:
    """What the memory meters see of a runtime's arrays.

    `seen_by` lists the methods that see every array, apart from resident pages, which show all
    memory. These methods need `variables` to be set before the runtime is imported. `slack_bytes`
    is how much an operation may allocate beside its result. `packs_in_numpys_blas` is True if
    products pack their matrices into buffers of the BLAS that NumPy loaded, which no method sees.
    """

    seen_by: tuple[Method, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    slack_bytes: int = 4 * 1024
    packs_in_numpys_blas: bool = True


@dataclass(frozen=True)
class Runtime(ABC):
    """Base class of the runtimes.

    Implementations with equal runtimes share a worker process. A runtime that must have a process
    of its own has a `process` that names its owner. Otherwise `process` is empty.
    """

    process: str = ""

    name: ClassVar[str]
    """Name in messages and result files."""

    module: ClassVar[str]
    """Module whose import loads the runtime."""

    packages: ClassVar[Mapping[str, tuple[str, ...]]]
    """Packages whose versions are recorded, and for each the names under which it is published."""

    install: ClassVar[str]
    """Command that installs the runtime."""

    import_s: ClassVar[float] = 0.5
    """Seconds from the start of a worker to its first answer. This is a first guess, which a run
    scales by what it measures."""

    relevant_variables: ClassVar[tuple[str, ...]] = ()
    """Patterns, as shells have them, of the variables that change what it computes or how fast. A
    result file records those that are set."""

    pins: ClassVar[Mapping[str, str]] = {}
    """Variables that keep it from its fastest kernels, and what each does. `{}` stands for the
    variable's value."""

    is_part_of_any_process: ClassVar[bool] = False
    """Whether any process can compute with it, so that no worker has to be started."""

    def apart(self, process: str) -> Self:
        """Return the same runtime in a process of its own, shared only by runtimes of this name."""
        return replace(self, process=process)

    def missing(self) -> Missing | None:
        """Return what has to be installed, or None if nothing has. Nothing is imported."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return Missing(self.name, self.install)

    def variables(self, threads: int) -> Mapping[str, str]:
        """Return the variables that a worker sets before the import. A suite may override them."""
        return {}

    def default_variables(self) -> Mapping[str, str]:
        """Further ones, which a worker has unless the caller's environment has them."""
        return {}

    def cautions(self, environ: Mapping[str, str]) -> Iterator[Caution]:
        """Yield what variables of the workers' environment hold the runtime back."""
        for name, effect in self.pins.items():
            value = environ.get(name, "")
            if value and value.upper() not in ("ALL", "DEFAULT"):
                yield unmeasured(f"{name}={value} {effect.format(value)}", unset([name]))

    @abstractmethod
    def start(self, threads: int) -> None:
        """Import the runtime and cap its threads. Raises ImplementationError if that fails."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the runtime's installed packages, by package."""
        found = {name: installed_version(*names) for name, names in self.packages.items()}
        return {name: version for name, version in found.items() if version is not None}

    @abstractmethod
    def meters(self) -> Meters:
        """Say what the memory meters see. The worker asks after it has imported the code."""

    def meter_variables(self) -> Mapping[str, str]:
        """Return the variables that a worker sets before the import in order to meter memory."""
        return self.meters().variables

    @abstractmethod
    def allocation(self, nbytes: int) -> Callable[[], object]:
        """Return a function that allocates an array of `nbytes` bytes, for testing a meter."""

    def poison(self, value: float) -> AbstractContextManager[None]:
        """Fill new arrays with a value inside the `with`, if the runtime allows that."""
        return nullcontext()
