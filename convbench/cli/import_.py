"""Run `convbench import`: read other tools' layer lists and models as a suite."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import complain, guarded, write
from convbench.cli.options import EffortOption, Force, grouped
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.importers.contract import Reading
    from convbench.suites.suite import Suite

MAX_TOLD = 20
"""Number of left-out entries that are printed. The suite names all of them."""


@dataclass(frozen=True)
class Origin:
    """The options that say what is read."""

    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of SOURCE, if convbench cannot tell: keras, onnx, benchdnn, deepbench, "
            "xnnpack, convset, libxsmm, convnet-benchmarks or csv.",
        ),
    ] = None
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape",
            help="Height, width and channels of a model's input, such as 224,224,3.",
            metavar="H,W,C",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Number of images in every layer's batch.", min=1),
    ] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing if anything has to be left out.")
    ] = False


@dataclass(frozen=True)
class Made:
    """The options for the parts of a suite that stand beside its layers."""

    name: Annotated[
        str | None, typer.Option(help="Name of the suite.  [default: that of the source]")
    ] = None
    description: Annotated[str, typer.Option(help="Purpose of the suite, in a line.")] = ""
    impl: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            help="Implementation that the suite runs. Repeatable.  "
            "[default: im2col, keras, keras-graph]",
        ),
    ] = None
    effort: EffortOption = None


@guarded
@grouped
def import_(
    *,
    source: Annotated[
        str,
        typer.Argument(
            help="List of layers, or model: a file, keras:NAME of keras.applications, or "
            "package.module:FUNCTION, which returns a Keras model.",
            metavar="SOURCE",
        ),
    ],
    origin: Origin,
    made: Made,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Suite file to write.  [default: stdout]", metavar="FILE.yaml"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Make a suite of another tool's list of layers, or of a model.

    Equal convolutions are merged and counted. Those that are left out are named, with their place
    and the reason.
    """
    from convbench.importers.merging import suite_name

    if output is not None and str(output) != "-":
        _check_path(output, force)
    if made.name is not None and made.name != suite_name(made.name, is_file=False, lower=False):
        raise ConvbenchError(
            f"--name: found {made.name!r}, expected letters, digits, dots, dashes and underscores"
        )
    text, summary = _read(source, origin, made)
    write(text, output)
    complain(summary)
    raise SystemExit(ExitCode.FINE)


def _read(source: str, origin: Origin, made: Made) -> tuple[str, str]:
    """Return the text of the suite's file, and a sentence on what was read."""
    from convbench import importers
    from convbench.importers.merging import IMPLEMENTATIONS, suite_name, suite_of
    from convbench.suites.file import MAX_BYTES
    from convbench.suites.file.writing import MAX_LAYERS, write_suite

    implementations = _known(made.impl) if made.impl else IMPLEMENTATIONS
    given = importers.source(source, _shape(origin.input_shape), origin.batch_size)
    known, reading = importers.read(given, origin.format_)
    _tell_left_out(reading)
    if origin.strict and reading.left_out:
        raise ConvbenchError(
            f"{source}: {len(reading.left_out)} entries had to be left out, and --strict was given"
        )
    is_file = given.head is not None
    name = made.name or suite_name(source, is_file)
    shown = given.path.name if is_file else source
    suite, layers = suite_of(name, shown, known, reading, origin.batch_size, implementations)
    suite = replace(suite, description=" ".join(made.description.split()))
    if made.effort is not None:
        suite = replace(suite, effort=made.effort.value)
    command = shlex.join(["convbench", "import", *_arguments(sys.argv[1:])])
    remarks = {one.layer.name: _also(one.others) for one in layers if one.others}
    text = write_suite(suite, f"Made by: {command}", remarks)
    if len(suite.layers) > MAX_LAYERS or len(text) > MAX_BYTES:
        raise ConvbenchError(
            f"{source}: {len(suite.layers)} different layers are more than a suite can have",
            hint=f"split the list: a suite has at most {MAX_LAYERS} layers and "
            f"{MAX_BYTES // 10**6} MB",
        )
    return text, _summary(suite, reading)


def _check_path(output: Path, force: bool) -> None:
    if output.suffix not in (".yaml", ".yml"):
        raise ConvbenchError(f"{output}: the file of a suite ends in .yaml")
    if output.exists() and not force:
        raise ConvbenchError(f"{output} exists already", hint="--force overwrites it")


def _known(names: list[str]) -> tuple[str, ...]:
    from convbench.implementations.registry import REGISTRY

    for name in names:
        REGISTRY.get(name)
    return tuple(dict.fromkeys(names))


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    words = text.replace("x", ",").split(",")
    if len(words) != 3 or not all(w.strip().isdecimal() and int(w) > 0 for w in words):
        raise ConvbenchError(
            f"--input-shape: found {text!r}, expected height, width and channels",
            hint="--input-shape 224,224,3",
        )
    height, width, channels = (int(word) for word in words)
    return height, width, channels


def _arguments(given: list[str]) -> list[str]:
    """Return the arguments of the command line that follow `import`."""
    return given[given.index("import") + 1 :] if "import" in given else given


def _also(others: tuple[str, ...]) -> str:
    shown = ", ".join(others[:3])
    more = len(others) - 3
    return f"also {shown} and {more} more" if more > 0 else f"also {shown}"


def _tell_left_out(reading: Reading) -> None:
    for note in reading.notes:
        complain(f"note: {note}")
    for entry in reading.left_out[:MAX_TOLD]:
        complain(f"left out: {entry}")
    if (more := len(reading.left_out) - MAX_TOLD) > 0:
        complain(f"left out: {more} more, named in the suite")


def _summary(suite: Suite, reading: Reading) -> str:
    assert suite.provenance is not None
    read, merged = suite.provenance.read, suite.provenance.merged
    return (
        f"{suite.provenance.format}: read {read} convolutions, merged {merged} into equal ones, "
        f"left out {len(reading.left_out)}: {len(suite.layers)} layers"
    )
