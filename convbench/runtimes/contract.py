"""Define what a runtime is: all that differs between NumPy, TensorFlow and others of their kind.

A worker process serves one runtime. The runtime says whether it is installed, which variables it
wants before its import, how its threads are capped, and what the memory meters see of its arrays.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from convbench.machine.description import installed_version

Method = Literal["memray", "tracemalloc", "rss"]
"""Methods of metering memory: every call of malloc, Python's own allocators, or resident pages."""


@dataclass(frozen=True)
class Missing:
    """What is not installed, as a reader calls it, and the command that installs it."""

    what: str
    install: str


@dataclass(frozen=True)
class Meters:
    """What the memory meters see of a runtime's arrays.

    `seen_by` are the methods that see every array, beside resident pages, which show all memory.
    `variables` must have been set before the runtime's import so that they do. `slack_bytes` is
    what an operation may allocate beside its result. `packs_in_numpys_blas` says that products pack
    their matrices into buffers of the BLAS that NumPy loaded, which no method sees.
    """

    seen_by: tuple[Method, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    slack_bytes: int = 4 * 1024
    packs_in_numpys_blas: bool = True


@dataclass(frozen=True)
class Runtime(ABC):
    """One runtime; to be derived from.

    Implementations whose runtimes are equal share a worker process. `process` is empty, or names
    whose the process is, for one that must have a process to itself.
    """

    process: str = ""

    name: ClassVar[str]
    """Name in messages and result files."""

    module: ClassVar[str]
    """Module whose import starts it."""

    packages: ClassVar[Mapping[str, tuple[str, ...]]]
    """Packages whose versions are recorded, each with the names under which it is published."""

    install: ClassVar[str]
    """Command that installs it."""

    import_s: ClassVar[float] = 0.5
    """Seconds from the start of a worker until it can be asked: a first guess, which a run scales
    by what it sees."""

    relevant_variables: ClassVar[tuple[str, ...]] = ()
    """Patterns, as shells have them, of the variables that change what it computes or how fast. A
    result file records those that are set."""

    is_part_of_any_process: ClassVar[bool] = False
    """Whether it computes in whatever process calls it, so that nothing has to be started."""

    def apart(self, process: str) -> Self:
        """The same runtime in a process that is shared with nobody but others of that name."""
        return replace(self, process=process)

    def missing(self) -> Missing | None:
        """What has to be installed; None where nothing has. Nothing is imported."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return Missing(self.name, self.install)

    def variables(self, threads: int) -> Mapping[str, str]:
        """Variables that a worker has before the import, unless a suite says otherwise."""
        return {}

    def default_variables(self) -> Mapping[str, str]:
        """Further ones, which a worker has unless the caller's environment has them."""
        return {}

    @abstractmethod
    def start(self, threads: int) -> None:
        """Imports the runtime and caps its threads. Raises ImplementationError where it cannot."""

    def versions(self) -> dict[str, str]:
        """Versions of its installed packages."""
        found = {name: installed_version(*names) for name, names in self.packages.items()}
        return {name: version for name, version in found.items() if version is not None}

    @abstractmethod
    def meters(self) -> Meters:
        """What the memory meters see; asked in the worker, where the code has been imported."""

    def meter_variables(self) -> Mapping[str, str]:
        """Variables that a worker which meters memory has before the import."""
        return self.meters().variables

    @abstractmethod
    def allocation(self, nbytes: int) -> Callable[[], object]:
        """A call whose result is a new array of so many bytes: what a meter is tested with."""

    def poison(self) -> AbstractContextManager[None]:
        """Arrays that nobody wrote to hold NaN inside the `with`, where that can be done."""
        return nullcontext()
