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
    """A source that cannot be read at all: no file, not text, of no known format."""


@dataclass(frozen=True)
class Found:
    """One convolution of a source, in its own words for `place` (`shapes_vgg_19:4`, a layer's
    path in a model)."""

    layer: Layer
    place: str


@dataclass(frozen=True)
class LeftOut:
    """One entry that is no layer of ours, or contradicts itself, and why."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Reading:
    """All that an importer has to say of a source, in its order.

    `notes` are sentences on what was read all the same; `tools` the versions that it took.
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
    """What is to be imported. `name` as the user wrote it; `head` is the beginning of the file,
    None where `name` is no file.

    `input_shape` is (height, width, channels) and `batch_size` the images, for sources that leave
    them open; None where the user did not say.
    """

    name: str
    head: bytes | None
    input_shape: tuple[int, int, int] | None = None
    batch_size: int | None = None

    @property
    def path(self) -> Path:
        return Path(self.name)


class Importer(Protocol):
    """A module of this package; `__init__.FORMATS` lists them."""

    def claims(self, source: Source) -> bool:
        """Whether the source is of this format, by its name and head."""

    def read(self, source: Source) -> Reading:
        """Raises ImportSourceError where the source as a whole cannot be read."""
