"""Define what an importer is: it reads the convolutions of a source, and says what it left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convbench.errors import ConvbenchError
from convbench.problem.layer import Layer

HEAD_BYTES = 2**16
"""Bytes of a file from which its format is told. Leading comments can be long."""


class ImportSourceError(ConvbenchError):
    """An error of a source that cannot be read at all: no file, not text, or no known format."""


@dataclass(frozen=True)
class Found:
    """One convolution of a source.

    `place` is written as the source has it: `shapes_vgg_19:4`, or a layer's path in a model.
    """

    layer: Layer
    place: str


@dataclass(frozen=True)
class LeftOut:
    """One entry that is no layer that convbench knows, or contradicts itself, with the reason."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Reading:
    """All that an importer found in a source, in the source's order.

    `notes` are sentences about entries that were read with a change or in part. `tools` names the
    packages that read the source, with their versions.
    """

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        entries: Iterable[Found | LeftOut],
        notes: tuple[str, ...] = (),
        tools: tuple[str, ...] = (),
    ) -> Reading:
        every = list(entries)
        found = tuple(entry for entry in every if isinstance(entry, Found))
        left_out = tuple(entry for entry in every if isinstance(entry, LeftOut))
        return cls(found, left_out, notes, tools)


@dataclass(frozen=True)
class Source:
    """A file, a model or a function that is to be imported.

    `name` is as the user wrote it, and `head` is the beginning of the file, None where `name` is
    not a file. `input_shape`, (height, width, channels), and `batch_size` are for sources that
    leave them open; None where the user did not give them.
    """

    name: str
    head: bytes | None
    input_shape: tuple[int, int, int] | None = None
    batch_size: int | None = None

    @property
    def path(self) -> Path:
        return Path(self.name)


class Importer(Protocol):
    """A module of this package that reads one format; `__init__.FORMATS` lists them."""

    def claims(self, source: Source) -> bool:
        """Return whether the source is of this format, by its name and head."""

    def read(self, source: Source) -> Reading:
        """Read a source. Raises ImportSourceError if it cannot be read as a whole."""
