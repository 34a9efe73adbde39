"""Test `convbench import` and `export` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from convbench.errors import ExitCode
from convbench.suites.file import read_suite
from convbench.suites.suite import shipped_suites
from tests.cli import ROOT, cells, convbench

LIST = """# three layers, one of them twice
mb4ic3oc4_ih9kh3ph1n"net:first"
mb4ic4oc6_ih9kh3ph1n"net:second*2"
mb4ic4oc6_ih9kh3ph1n"net:third"
ic3oc4_iw9kw3n"line"
"""


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    file = tmp_path / "shapes_net"
    file.write_text(LIST)
    return file


def test_a_list_becomes_a_suite_that_runs(shapes: Path, tmp_path: Path) -> None:
    suite, result = tmp_path / "net.yaml", tmp_path / "net.json"
    options = ("--batch-size", 2, "--impl", "loop", "--impl", "im2col", "--effort", "smoke")
    done = convbench("import", shapes, *options, "-o", suite)
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        'convbench: left out: shapes_net:5: ic3oc4_iw9kw3n"line": found a 1-D convolution '
        "(no height), expected 2-D",
        f"convbench: wrote {suite}",
        "convbench: benchdnn: read 3 convolutions, merged 1 into equal ones, left out 1: 2 layers",
    ]
    text = suite.read_text()
    assert text.startswith(
        "# yaml-language-server: $schema=suite.schema.json\n# Made by: convbench"
    )
    assert "count: 3}  # also net:third\n" in text

    done = convbench("run", suite, "--quiet", "-o", result)
    assert done.returncode in (ExitCode.FINE, ExitCode.INCONCLUSIVE)
    assert "layers    shapes_net (3 convolutions, 1 merged into equal ones, 1 left out)" in (
        done.stdout.replace("\n          ", " ")
    )
    document = json.loads(result.read_text())
    assert {cell["status"] for cell in cells(document).values()} == {"ok"}
    assert document["convbench"]["suite"]["provenance"]["notes"] == ["batch_size set to 2, from 4"]


def test_without_a_file_the_suite_goes_to_stdout(shapes: Path) -> None:
    done = convbench("import", shapes)
    document = yaml.safe_load(done.stdout)
    assert [layer["name"] for layer in document["layers"]] == ["net:first", "net:second"]
    assert document["name"] == "shapes_net"
    assert document["provenance"]["left_out"] == [
        'shapes_net:5: ic3oc4_iw9kw3n"line": found a 1-D convolution (no height), expected 2-D'
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["absent"], "error: there is no file absent"),
        (["LIST", "--format", "benchdn"], "hint: did you mean 'benchdnn'?"),
        (["LIST", "--strict"], "1 entries had to be left out, and --strict was given"),
        (["LIST", "-o", "LIST"], "the file of a suite ends in .yaml"),
        (["LIST", "-o", "TAKEN"], "exists already"),
        (["LIST", "--impl", "imcol"], "there is no implementation 'imcol'"),
        (["LIST", "--name", "a\x1b[31m\nb"], "--name: found 'a\\x1b[31m\\nb', expected letters"),
        (["LIST", "--input-shape", "8,8"], "--input-shape: found '8,8', expected height, width"),
        (["LIST", "--format", "csv"], "found no column filters, kernel_size, input_shape"),
        (["keras:ResNet5"], "keras.applications has no 'ResNet5'"),
    ],
)
def test_what_cannot_be_imported_is_reported_and_nothing_is_written(
    arguments: list[str], told: str, shapes: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken.yaml"
    taken.write_text("mine")
    named = {"LIST": str(shapes), "TAKEN": str(taken)}
    done = convbench("import", *[named.get(word, word) for word in arguments])
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert taken.read_text() == "mine"
    assert shapes.read_text() == LIST


def test_a_suite_goes_to_benchdnn_and_back(shapes: Path, tmp_path: Path) -> None:
    suite, written, again = (tmp_path / name for name in ("a.yaml", "a.txt", "b.yaml"))
    convbench("import", shapes, "-o", suite)
    done = convbench("export", "benchdnn", suite, "-o", written)
    assert done.returncode == 0
    assert done.stderr.endswith("convbench: benchdnn: 2 of 2 layers\n")
    convbench("import", written, "-o", again)
    assert read_suite(again).layers == read_suite(suite).layers
    some = convbench("export", "benchdnn", suite, "--layer", "*first", "--pass", "forward")
    assert some.stdout.splitlines()[2:] == [
        "--dir=FWD_D",
        'mb4_g1ic3oc4_ih9oh9kh3sh1ph1dh0_iw9ow9kw3sw1pw1dw0_n"net:first"',
    ]


def test_layers_that_benchdnn_cannot_run_are_reported() -> None:
    done = convbench("export", "benchdnn", "geometry", "--layer", "float64*")
    assert done.returncode == ExitCode.USAGE
    assert "left out: float64: benchdnn has no float64 convolution on a CPU" in done.stderr
    assert "error: geometry: benchdnn can run none of its layers" in done.stderr


IMPORTED = ("alexnet", "deepbench", "inception_v3", "mobilenet", "resnet50", "vgg16")


@pytest.mark.parametrize("name", IMPORTED)
def test_a_shipped_network_says_where_it_comes_from(name: str) -> None:
    suite = read_suite(shipped_suites()[name])
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    assert suite.provenance is not None
    read = suite.provenance.read
    assert read == len(suite.layers) + suite.provenance.merged
    assert "# Made by: convbench import" in text
    assert suite.effort == "quick"
    total = sum(layer.count for layer in suite.layers)
    published = {"resnet50": 53, "vgg16": 13, "mobilenet": 28, "inception_v3": 94, "alexnet": 5}
    assert total == published.get(name, read)


@pytest.mark.slow
def test_a_shipped_keras_suite_is_what_import_makes(tmp_path: Path) -> None:
    """The installed versions make the suite here; its file says which versions made it."""
    made = tmp_path / "vgg16.yaml"
    options = ("--batch-size", 4, "--effort", "quick", "--name", "vgg16")
    assert convbench("import", "keras:VGG16", *options, "-o", made).returncode == 0
    assert read_suite(made).layers == read_suite("configs/vgg16.yaml").layers
