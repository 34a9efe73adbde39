"""Test importers: what each format means, what is refused and why, and round trips.

The registry is enumerated, so that a new importer is tested as soon as it is there.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convbench import importers
from convbench.agreement.check import oracle
from convbench.importers import benchdnn
from convbench.importers.contract import Found, ImportSourceError, Reading
from convbench.importers.merging import merged, suite_of
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import exact_integers
from convbench.suites.file import read_suite
from convbench.suites.file.writing import write_suite
from convbench.suites.suite import Suite
from tests.layers import layers

EXAMPLES = {
    "benchdnn": ("shapes", 'mb4_g2ic6oc4_ih9oh5kh3sh2dh1ph2_iw7ow7kw1pw0n"net:a*3"\n'),
    "deepbench": (
        "problems.csv",
        "set,w,h,c,n,k,filter_w,filter_h,pad_w,pad_h,wstride,hstride\n"
        "training_set,9,7,3,4,8,5,3,2,1,2,1\n",
    ),
    "xnnpack": ("shapes.txt", "# a comment\n9 7 3 3 1 2 2 1 3 8\n"),
    "convset": (
        "set.csv",
        "N,C_in,H_in,W_in,C_out,H_out,W_out,kh,kw,pad_left,pad_right,pad_top,pad_bottom,sh,sw,dh,"
        "dw,groups,transposed,bias,n_uses,n_models,first_use,torch_pad_consistent\n"
        "2,4,9,7,8,5,4,3,3,1,1,1,1,2,2,1,1,2,0,1,35,3,a.conv,1\n",
    ),
    "libxsmm": (
        "layers.csv",
        "topology,ifw,ifh,nIfm,nOfm,kw,kh,padw,padh,stride,mb_if_fixed,multiplicity_comment\n"
        "net,9,7,3,8,3,5,1,2,2,16,4\n",
    ),
    "convnet-benchmarks": (
        "layerwise.csv",
        "layer,input_hw,batch,c_in,c_out,k,stride,pad\nL1,13,128,3,8,3,2,1\n",
    ),
    "csv": (
        "mine.csv",
        "name,input_shape,filters,kernel_size,strides,padding,use_bias,count\n"
        'a,9x7x3,8,"3, 5",2,same,true,2\n',
    ),
}
"""Name and content of a small file for every format that is text."""

MEANT = {
    "benchdnn": Layer(
        *("net:a", (9, 7, 6), 4, (3, 1), (2, 1), ((2, 2), (0, 0)), (2, 1)),
        groups=2,
        batch_size=4,
        count=3,
    ),
    "deepbench": Layer(
        *("training_set:2", (7, 9, 3), 8, (3, 5), (1, 2), ((1, 1), (2, 2))), batch_size=4
    ),
    "xnnpack": Layer(*("shapes:2", (9, 7, 3), 8, (3, 3), (2, 2), ((0, 1), (1, 1))), batch_size=1),
    "convset": Layer(
        *("a.conv", (9, 7, 4), 8, (3, 3), (2, 2), ((1, 1), (1, 1))),
        groups=2,
        use_bias=True,
        batch_size=2,
        count=35,
    ),
    "libxsmm": Layer(
        *("net:2", (7, 9, 3), 8, (5, 3), (2, 2), ((2, 2), (1, 1))), batch_size=16, count=4
    ),
    "convnet-benchmarks": Layer(
        *("L1", (13, 13, 3), 8, (3, 3), (2, 2), ((1, 1), (1, 1))), batch_size=128
    ),
    "csv": Layer(
        *("a", (9, 7, 3), 8, (3, 5), (2, 2), "same"), use_bias=True, batch_size=1, count=2
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes, name: str = "source", format_: str | None = None) -> Reading:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return importers.read(importers.source(name), format_)[1]


def layer_of(text: str, name: str = "source", format_: str | None = None) -> Layer:
    (found,) = read(text, name, format_).found
    return found.layer


def reason_of(text: str, name: str = "source", format_: str | None = None) -> str:
    reading = read(text, name, format_)
    assert not reading.found
    (left_out,) = reading.left_out
    return str(left_out)


# Every format


def test_there_is_an_example_of_every_format_that_is_text() -> None:
    assert {*EXAMPLES, "keras", "onnx"} == set(importers.FORMATS)


@pytest.mark.parametrize("format_", EXAMPLES)
def test_a_file_is_known_by_its_content_and_means_what_it_says(format_: str) -> None:
    name, text = EXAMPLES[format_]
    Path(name).write_text(text)
    found, reading = importers.read(importers.source(name))
    assert found == format_
    assert [entry.layer for entry in reading.found] == [MEANT[format_]]
    line = next(i for i, row in enumerate(text.splitlines(), 1) if not row.startswith("#"))
    assert reading.found[0].place == f"{name}:{max(line, len(text.splitlines()))}"


@pytest.mark.parametrize("format_", EXAMPLES)
@pytest.mark.parametrize(
    "broken",
    [
        "7",
        "x,y",
        "1," * 40,
        "-1 -1 -1 -1 -1 -1 -1 -1 -1 -1",
        "9" * 400,
        '"',
        "ic3oc",
        "\x1b[31m",
        "é",
    ],
)
def test_a_line_that_is_no_layer_is_left_out_with_its_place(format_: str, broken: str) -> None:
    name, text = EXAMPLES[format_]
    reading = read(f"{text}{broken}\n", name, format_)
    assert [entry.layer for entry in reading.found] == [MEANT[format_]]
    assert reading.left_out  # one, or one for each word where a line holds several descriptors
    for left_out in reading.left_out:
        assert left_out.place == f"{name}:{len(text.splitlines()) + 1}"
        assert left_out.reason.isprintable()
        assert len(left_out.reason) < 300


@pytest.mark.parametrize("format_", EXAMPLES)
@given(noise=st.text(max_size=200))
def test_any_text_is_read_or_refused(format_: str, noise: str) -> None:
    name, text = EXAMPLES[format_]
    data = (text + noise).encode(errors="surrogatepass")
    try:
        reading = read(data, name, format_)
    except ImportSourceError:
        return  # convbench's own error is the one that may be raised
    assert reading.found[0].layer == MEANT[format_]
    assert all(entry.place and entry.reason for entry in reading.left_out)


HOSTILE = {
    "a pickle": (pickle.dumps({"layers": 1}), "a pickle, which is never loaded"),
    "a binary file": (bytes(range(256)) * 10, "a binary file"),
    "latin-1": ("größer".encode("latin-1") + b"\n", "the byte 0xf6, which is not UTF-8"),
    "an empty file": (b"", "an empty file"),
    "prose": (b"these are no layers\n", "text in another format"),
    "a suite": (b"name: x\nlayers:\n- {}\n", "a file that may be a suite already"),
    "a zip": (b"PK\x03\x04" + bytes(30), "a zip archive that is not a Keras model"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_of_no_known_format_is_refused_for_what_it_is(case: str) -> None:
    data, found = HOSTILE[case]
    with pytest.raises(ImportSourceError, match="expected one of the known formats") as error:
        read(data)
    assert error.value.message.startswith(f"source: found {found}, expected")


@pytest.mark.parametrize("format_", EXAMPLES)
def test_a_line_of_100_megabytes_is_refused_unread(format_: str) -> None:
    name, text = EXAMPLES[format_]
    with Path(name).open("wb") as stream:
        stream.write(text.encode())
        stream.truncate(100_000_000)  # the file has a hole, which takes no room on the disk
    with pytest.raises(ImportSourceError, match="found more than 20 MB"):
        importers.read(importers.source(name), format_)
    Path(name).write_text(text + "9" * 1_000_000)
    with pytest.raises(ImportSourceError, match="found a line of 1000000 characters"):
        importers.read(importers.source(name), format_)


@pytest.mark.parametrize("format_", EXAMPLES)
def test_a_file_cut_in_the_middle_of_a_line_loses_that_line(format_: str) -> None:
    name, text = EXAMPLES[format_]
    cut = text + text.splitlines()[-1][:7]
    reading = read(cut, name, format_)
    assert [entry.layer for entry in reading.found] == [MEANT[format_]]
    assert len(reading.left_out) == 1


def test_sources_that_are_no_files_are_refused(folder: Path) -> None:
    with pytest.raises(ImportSourceError, match="found a folder, expected a file"):
        importers.source(str(folder))
    with pytest.raises(ImportSourceError, match="there is no file a"):
        importers.read(importers.source("a\0b"))
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        with pytest.raises(ImportSourceError, match="found no regular file"):
            importers.source("pipe")
    with pytest.raises(ImportSourceError, match=r"there is no file absent\.csv"):
        importers.read(importers.source("absent.csv"))
    with pytest.raises(ImportSourceError, match="there is no format 'deepbnch'") as error:
        importers.get("deepbnch")
    assert str(error.value.hint).startswith("did you mean 'deepbench'?")


# benchdnn

DESCRIPTORS = {
    # The width copies the height. The pad follows from the output, or the output from the pad.
    'ic3oc4_ih5oh5kh3n"x"': ((5, 5, 3), (3, 3), ((1, 1), (1, 1)), (5, 5)),
    "ic3oc4_ih5kh3ph1": ((5, 5, 3), (3, 3), ((1, 1), (1, 1)), (5, 5)),
    "ic3oc4_ih5kh3": ((5, 5, 3), (3, 3), "valid", (3, 3)),
    # The pad on the right differs, and one would be negative: strides skip those rows anyway.
    "ic3oc4_ih5oh8kh3ph3": ((5, 5, 3), (3, 3), ((3, 2), (3, 2)), (8, 8)),
    "ic3oc4_ih56oh28kh1sh2ph0": ((56, 56, 3), (1, 1), "valid", (28, 28)),
    "ic3oc4_ih224oh112kh7sh2ph3": ((224, 224, 3), (7, 7), ((3, 3), (3, 3)), (112, 112)),
    # A dilation of 0 means a dense kernel.
    "ic3oc4_ih9oh5kh3dh1ph0_iw9ow7kw3pw0": ((9, 9, 3), (3, 3), "valid", (5, 7)),
}


@pytest.mark.parametrize("text", DESCRIPTORS)
def test_a_descriptor_means_what_benchdnn_means(text: str) -> None:
    shape, kernel, padding, output = DESCRIPTORS[text]
    layer = layer_of(text)
    found = (layer.input_shape, layer.kernel_size, layer.padding, layer.output_size)
    assert found == (shape, kernel, padding, output)
    assert layer.batch_size == 2


REFUSED = {
    "ic3oc4_iw5kw3": "found a 1-D convolution (no height), expected 2-D",
    "ic3oc4_ih5kh3id5kd3": "found a 3-D convolution, expected 2-D",
    "ic3_ih5kh3": "it has no oc",
    "ic3oc4_ih5": "it has no kh and no kw",
    "ic3oc4_ih5kh3zz3": "found 'zz3', expected a key and a number",
    "ic3oc4_ih5kh0": "sizes, kernel and strides (h) must be at least 1",
    "ic3oc4_ih5kh3sh0": "sizes, kernel and strides (h) must be at least 1",
    "ic3oc4_ih5kh9": "the output would be empty (h)",
    "ic3oc4_ih9oh2kh3ph0": "its output leaves 5 of the input's last rows unused: that needs a "
    "negative pad",
    "ic3oc4_ih5oh1kh3": "ph would be -1: the input would be cut, not padded",
    "ic3oc4_ih99999999999kh3": "ih: the number is too large",
    "g2ic3oc4_ih5kh3": "groups: 2 must divide the 3 input channels and the 4 filters",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_descriptor_is_refused_with_its_reason(text: str) -> None:
    assert reason_of(text, format_="benchdnn") == f"source:1: {text}: {REFUSED[text]}"


def test_comments_continuations_and_several_descriptors_in_a_line_are_read() -> None:
    reading = read(
        "# ic9oc9_ih9kh3\n"
        'ic3oc4_ih5kh3n"a" ic3oc4_ih6kh3n"b"#c # ic3oc4_ih7kh3n"d"\n'
        'ic3oc4_ih8\\\n   kh3n"e"\n'
    )
    named = [(found.layer.name, found.layer.input_size[0], found.place) for found in reading.found]
    assert named == [
        ("a", 5, "source:2"),
        ('"b"#c', 6, "source:2"),
        ("e", 8, "source:3"),
    ]


def test_batch_files_are_followed_within_their_folder(folder: Path) -> None:
    (folder / "more").mkdir()
    Path("more/inner").write_text('ic3oc4_ih5kh3n"inner"\n--batch=source\n')
    Path("secret").write_text("ic3oc4_ih5kh3\n")
    Path("more/source").write_text(
        "--batch=inner\n--batch=../secret\n--batch=/etc/passwd\n--batch=absent\n--batch=\n"
        f"--batch={'x' * 5000}\n--batch=/dev/zero\n--batch=inner\n"
    )
    reading = importers.read(importers.source("more/source"))[1]
    assert [found.layer.name for found in reading.found] == ["inner", "inner"]
    assert [str(entry) for entry in reading.left_out] == [
        "inner:2: --batch=source: that file names this one",
        "source:2: --batch=../secret: it lies outside of more: import that file itself",
        "source:3: --batch=/etc/passwd: it lies outside of more: import that file itself",
        "source:4: --batch=absent: there is no such file",
        "source:5: --batch=: there is no such file",
        f"source:6: --batch={'x' * 57}...: there is no such file",
        "source:7: --batch=/dev/zero: it lies outside of more: import that file itself",
        "inner:2: --batch=source: that file names this one",
    ]


def test_a_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    (folder / "more").mkdir()
    Path("secret").write_text("ic3oc4_ih5kh3\n")
    Path("more/link").symlink_to(folder / "secret")
    Path("more/source").write_text("--batch=link\n")
    reading = importers.read(importers.source("more/source"))[1]
    assert not reading.found
    assert "it lies outside of more" in reading.left_out[0].reason


def test_a_long_chain_of_batch_files_is_cut(folder: Path) -> None:
    for i in range(20):
        Path(f"file{i}").write_text(f"--batch=file{i + 1}\nic3oc4_ih5kh3n{i}\n")
    reading = importers.read(importers.source("file0"))[1]
    assert [found.layer.name for found in reading.found] == [str(i) for i in reversed(range(8))]
    assert reading.left_out[0].reason == "--batch=file8: more than 8 files name one another"


def test_options_that_change_problems_are_followed_or_noted() -> None:
    reading = read(
        "--dir=FWD_B --mb=7 ic3oc4_ih5kh3na\n--reset --dt=u8 --dir=FWD_D,BWD_W ic3oc4_ih5kh3nb\n"
    )
    assert [(f.layer.use_bias, f.layer.batch_size) for f in reading.found] == [
        (True, 7),
        (False, 2),
    ]
    assert reading.notes == ("source:2: the option --dt is not followed",)


names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=12)


@given(layer=layers(dtypes=("float32",)), name=names, count=st.integers(1, 40))
def test_a_layer_survives_benchdnn_and_back(layer: Layer, name: str, count: int) -> None:
    """Only the number of padding rows that no window reaches may change."""
    layer = replace(layer, name=name, count=count)
    again = layer_of(benchdnn.describe(layer), format_="benchdnn")
    assert again.output_size == layer.output_size
    assert [before for before, _ in again.pads] == [before for before, _ in layer.pads]
    assert replace(again, padding=layer.padding, use_bias=layer.use_bias) == layer
    assert benchdnn.describe(again) == benchdnn.describe(layer)
    for pass_ in Pass:
        drawn = exact_integers(layer, pass_, 0)
        plain = replace(again, use_bias=layer.use_bias)
        expected = oracle.expected(layer, pass_, drawn)
        assert np.array_equal(oracle.expected(plain, pass_, drawn), expected)


def test_a_suite_written_for_benchdnn_states_the_same_problems() -> None:
    biased = Layer("a b", (9, 7, 4), 6, (3, 3), dilation_rate=(2, 1), use_bias=True, count=2)
    plain = Layer("c*3", (9, 7, 4), 6, (3, 3), (2, 2), "same", groups=2)
    double = Layer("d", (9, 7, 4), 6, (3, 3), dtype="float64")
    text, left_out = benchdnn.write(Suite("s", (biased, plain, double), source="s.yaml"))
    assert [str(entry) for entry in left_out] == ["d: benchdnn has no float64 convolution on a CPU"]
    assert text.splitlines()[1:] == [
        "# benchdnn --conv --mode=P --batch=THIS_FILE",
        "--dir=FWD_B,BWD_D,BWD_W",
        'mb32_g1ic4oc6_ih9oh5kh3sh1ph0dh1_iw7ow5kw3sw1pw0dw0_n"a_b*2"',
        "--dir=FWD_D,BWD_D,BWD_W",
        'mb32_g2ic4oc6_ih9oh5kh3sh2ph1dh0_iw7ow4kw3sw2pw1dw0_n"c*3*1"',
    ]
    again = [found.layer for found in read(text).found]
    assert again[0] == replace(biased, name="a_b")
    assert replace(again[1], padding="same") == plain


# The other formats


def test_deepbenchs_own_header_is_read() -> None:
    reading = read(
        "std::vector<std::tuple<...>> training_set = {\n"
        "    std::make_tuple(9, 7, 3, 4, 8, 5, 3, 2, 1, 2, 1), // vision\n"
        "    //std::make_tuple(9, 7, 3, 4, 8, 5, 3, 2, 1, 2, 1),\n"
        "};\ninference_server_set = {std::make_tuple(9, 7),"
        " std::make_tuple(9, 7, 3, 4, 8, 5, 3, 2, 1, 2, 2)};\n",
        "conv_problems.h",
    )
    assert [found.layer for found in reading.found] == [
        MEANT["deepbench"],
        replace(MEANT["deepbench"], name="inference_server_set:5", strides=(2, 2)),
    ]
    (left_out,) = reading.left_out
    assert str(left_out) == "conv_problems.h:5: make_tuple(9, 7): found 2 numbers, expected 11"


def test_deepbench_tuples_are_read_over_two_lines_but_not_in_comments() -> None:
    reading = read(
        "training_set = {\n  std::make_tuple(9, 7, 3, 4, 8,\n    5, 3, 2, 1, 2, 1),\n"
        "/* std::make_tuple(1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1),\n */ };\n",
        "conv_problems.h",
    )
    assert [(f.place, f.layer) for f in reading.found] == [
        ("conv_problems.h:2", MEANT["deepbench"])
    ]


@pytest.mark.parametrize("format_", EXAMPLES)
def test_a_byte_order_mark_and_line_ends_of_windows_are_accepted(format_: str) -> None:
    name, text = EXAMPLES[format_]
    Path(name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found, reading = importers.read(importers.source(name))
    assert (found, [entry.layer for entry in reading.found]) == (format_, [MEANT[format_]])


def test_long_comments_in_front_do_not_hide_a_format() -> None:
    assert layer_of("# no layer here\n" * 1000 + "ic3oc4_ih5kh3\n").filters == 4


def test_columns_of_other_names_and_columns_twice_are_refused() -> None:
    with pytest.raises(ImportSourceError, match=r"t\.csv:1: found the column 'stride', ") as error:
        read("name,input_shape,filters,kernel_size,stride\na,8x8,4,3,2\n", "t.csv")
    assert error.value.hint == "did you mean strides?"
    with pytest.raises(ImportSourceError, match=r"t\.csv:1: found the column filters twice"):
        read("input_shape,filters,kernel_size,filters\n8x8,4,3,5\n", "t.csv")


def test_xnnpack_lists_depthwise_layers_by_their_groups() -> None:
    layer = layer_of("14 14 3 3 2 2 2 1 576\n", "mobilenet.txt")
    assert layer.is_depthwise
    assert (layer.channels, layer.filters, layer.output_size) == (576, 576, (7, 7))
    assert layer.pads == ((1, 1), (1, 1))


def test_convset_checks_the_output_and_reads_same_padding() -> None:
    _, text = EXAMPLES["convset"]
    other = text.replace(",8,5,4,", ",8,5,5,")
    assert reason_of(other).endswith("its output is 5x5, but its sizes give 5x4")
    same = text.replace(",3,3,1,1,1,1,", ",3,3,0,0,0,0,").replace("a.conv,1", "a.conv,0")
    assert layer_of(same).padding == "same"
    transposed = text.replace(",2,0,1,35", ",2,1,1,35")
    assert "a transposed convolution" in reason_of(transposed)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a,9x7,8,3,,", {"input_shape": (9, 7, 1), "kernel_size": (3, 3)}),
        ("a,[9; 7; 3],8,3×5,1 2,1", {"strides": (1, 2), "padding": ((1, 1), (1, 1))}),
        ('a,9x7x3,8,3,1,"1, 2, 0, 3"', {"padding": ((1, 2), (0, 3))}),
        ("a,9x7x3,8,3,1,0", {"padding": "valid"}),
    ],
)
def test_a_plain_table_takes_sizes_as_people_write_them(row: str, told: dict[str, object]) -> None:
    layer = layer_of(f"name,input_shape,filters,kernel_size,strides,padding\n{row}\n")
    assert {key: getattr(layer, key) for key in told} == told


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("9x7x3x2,8,3,,", "input_shape: found '9x7x3x2', expected 2 or 3 numbers"),
        ("9x7x3,eight,3,,", "filters: found 'eight', expected a whole number"),
        ("9x7x3,8,3,maybe,", "use_bias: found 'maybe', expected true or false"),
        ("9x7x3,8,3,,float16", "dtype: found 'float16', expected float32 or float64"),
        ("9x7x3,8,99,,", "kernel_size: a kernel of 99x99 with dilation_rate 1x1 does not fit"),
        ("9x7x3,8,3", "found 3 values, expected 5"),
    ],
)
def test_a_row_of_a_plain_table_is_refused_with_its_reason(row: str, reason: str) -> None:
    told = reason_of(f"input_shape,filters,kernel_size,use_bias,dtype\n{row}\n", "t.csv")
    assert told.startswith(f"t.csv:2: {row}: {reason}")


def test_the_error_of_a_table_names_the_column_that_is_missing() -> None:
    with pytest.raises(ImportSourceError, match="source:1: found no column pad_h, expected w, h"):
        read(EXAMPLES["deepbench"][1].replace("pad_h", "pad_z"), format_="deepbench")


# To a suite


def test_equal_convolutions_are_merged_and_counted() -> None:
    one = Layer("a", (8, 8, 3), 4, (3, 3), padding="same", count=2)
    same = replace(one, name="b", padding=((1, 1), (1, 1)), count=3)
    other = replace(one, name="a", use_bias=True, count=1)
    found = merged([Found(layer, "") for layer in (one, same, other)])
    assert [(m.layer.name, m.layer.count, m.others) for m in found] == [
        ("a", 5, ("b",)),
        ("a-2", 1, ()),
    ]


def test_layers_of_one_name_are_numbered() -> None:
    found = [Found(Layer("conv", (8, 8, n), 4, (3, 3)), "") for n in range(1, 3001)]
    names_ = [one.layer.name for one in merged(found)]
    assert names_[:3] == ["conv", "conv-2", "conv-3"]
    assert len(set(names_)) == 3000
    taken = [Found(Layer(name, (8, 8, i + 1), 4, (3, 3)), "") for i, name in enumerate("aab")]
    odd = [Found(Layer("a-2", (9, 9, 1), 4, (3, 3)), ""), *taken]
    assert [one.layer.name for one in merged(odd)] == ["a-2", "a", "a-3", "b"]


def test_the_batch_size_is_set_and_the_suite_says_so() -> None:
    found = tuple(
        Found(Layer(f"x{n}", (8, 8, 3), 4, (3, 3), batch_size=n), "") for n in (1, 16, 32)
    )
    suite, _ = suite_of("s", "list.csv", "csv", Reading(found), batch_size=1)
    assert [(layer.name, layer.batch_size, layer.count) for layer in suite.layers] == [("x1", 1, 3)]
    assert suite.provenance is not None
    assert (suite.provenance.read, suite.provenance.merged) == (3, 2)
    assert suite.provenance.notes == ("batch_size set to 1, from 16, 32",)


def test_a_source_without_any_layer_is_an_error() -> None:
    with pytest.raises(ImportSourceError, match=r"found no convolution that .*; left out 0"):
        suite_of("s", "list.csv", "csv", Reading(()))


drawn_names = st.text(min_size=0, max_size=10)


@given(drawn=st.lists(st.tuples(layers(), drawn_names, st.integers(1, 9)), min_size=1, max_size=5))
def test_a_suite_that_was_written_reads_back_as_it_was(
    drawn: list[tuple[Layer, str, int]],
) -> None:
    found = [Found(replace(layer, name=name, count=n), "x") for layer, name, n in drawn]
    suite, layers_ = suite_of(
        "drawn", "list \x1b[31m.csv", "csv", Reading(tuple(found), notes=("é",))
    )
    remarks = {one.layer.name: ", ".join(one.others) for one in layers_}
    text = write_suite(suite, "head: # of \n several lines", remarks)
    Path("drawn.yaml").write_text(text)
    again = read_suite("drawn.yaml")
    assert replace(again, source="", description="") == suite
    assert sum(layer.count for layer in again.layers) == sum(n for _, _, n in drawn)
