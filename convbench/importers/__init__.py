"""Read other tools' layer lists and models, and write suites for other tools.

To add an importer, write a module with the functions of `contract.Importer` and add a line to
FORMATS. The conformance tests pick it up.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import cast

from convbench.importers.contract import HEAD_BYTES, Importer, ImportSourceError, Reading, Source
from convbench.importers.text import not_text

FORMATS: dict[str, str] = {
    "keras": "convbench.importers.keras_model",
    "onnx": "convbench.importers.onnx_model",
    "convset": "convbench.importers.convset",
    "deepbench": "convbench.importers.deepbench",
    "libxsmm": "convbench.importers.libxsmm",
    "convnet-benchmarks": "convbench.importers.convnet_benchmarks",
    "csv": "convbench.importers.keras_csv",
    "xnnpack": "convbench.importers.xnnpack",
    "benchdnn": "convbench.importers.benchdnn",
}
"""Importers, in the order in which they are asked whether a source is theirs."""


def get(format_: str) -> Importer:
    """Return the importer of a format. Raises ImportSourceError for a format that is not known."""
    if format_ not in FORMATS:
        close = get_close_matches(format_, FORMATS, n=1)
        raise ImportSourceError(
            f"there is no format {format_!r}",
            hint=(f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(FORMATS)}",
        )
    return cast(Importer, import_module(FORMATS[format_]))


def source(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    batch_size: int | None = None,
) -> Source:
    """Make a source from its name. Raises ImportSourceError for a file that cannot be read."""
    path = Path(name)
    try:
        if not path.exists():
            return Source(name, None, input_shape, batch_size)
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise ImportSourceError(f"{name}: found {what}, expected a file")
        with path.open("rb") as stream:
            return Source(name, stream.read(HEAD_BYTES), input_shape, batch_size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImportSourceError(f"{name!r} cannot be read: {reason}") from None


def format_of(given: Source) -> str:
    """Return the format whose importer claims a source. Raises ImportSourceError if none does."""
    for name in FORMATS:
        if get(name).claims(given):
            return name
    if given.head is None:
        raise ImportSourceError(
            f"there is no file {given.name}",
            hint="name a file, a model of keras.applications (keras:ResNet50), or a function that "
            "returns a Keras model (package.module:function)",
        )
    raise ImportSourceError(
        f"{given.name}: found {_what_it_is(given.head)}, expected one of the known formats: "
        f"{', '.join(FORMATS)}",
        hint="name the format with --format; docs/importing.md describes each",
    )


def _what_it_is(head: bytes) -> str:
    """Say what a file that no importer claims looks like."""
    if not head:
        return "an empty file"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a pickle, which is never loaded"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive that is not a Keras model"
    if (problem := not_text(head[: head.rfind(b"\n") + 1] or head)) is not None:
        return problem
    if b"layers:" in head:
        return "a file that may be a suite already"
    return "text in another format"


def read(given: Source, format_: str | None = None) -> tuple[str, Reading]:
    """Return the format of a source and what it holds.

    Raises ImportSourceError if the source as a whole cannot be read.
    """
    name = format_ or format_of(given)
    return name, get(name).read(given)
