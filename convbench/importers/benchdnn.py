"""Read and write oneDNN's benchdnn: problem descriptors and batch files.

The grammar is that of tests/benchdnn/doc/knobs_and_descriptors (`mb2_ic3oc16_ih5oh5kh3ph1n"name"`).
Keys come in any order, `_` may separate them, and the name comes last. A dilation of 0 is dense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from convbench.errors import LayerError
from convbench.importers.contract import Found, ImportSourceError, LeftOut, Reading, Source
from convbench.importers.padding import written
from convbench.importers.text import lines, shown
from convbench.machine.version import __version__
from convbench.problem.layer import Layer, Pass
from convbench.suites.suite import Suite

MAX_DEPTH = 8
"""Largest depth of batch files that name batch files."""

MAX_NUMBER = 2**31 - 1
"""Largest number in a descriptor, that of a signed 32-bit integer."""

_KEY = re.compile(r"(mb|ic|oc|[iokspd][dhw]|g)(-?\d+)|_|(n)")
_TIMES = re.compile(r"\*(\d+)$")
_DEFAULT = {"g": 1, "mb": 2}
_DEPTH_KEYS = ("id", "od", "kd", "sd", "pd", "dd")

Fields = dict[str, int]


class DescriptorError(ValueError):
    """A token that is not a 2-D problem; the text says why."""


def claims(source: Source) -> bool:
    """Return whether a file begins with a descriptor or with one of benchdnn's options."""
    if source.head is None:
        return False
    text = source.head.decode("utf-8-sig", "replace")
    tokens = [token for line in text.splitlines() for token, _ in _tokens(line)]
    return bool(tokens) and (tokens[0].startswith("--") or _is_descriptor(tokens[0]))


def read(source: Source) -> Reading:
    """Read a file of descriptors, and the files in its folder that `--batch=FILE` names."""
    reader = _Reader(source.path.resolve().parent)
    entries = list(reader.entries(source.path, ()))
    return Reading.of(entries, notes=tuple(dict.fromkeys(reader.notes)))


class _Reader:
    """A reader of batch files. An option holds from the place where it stands."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._batch_size = 0
        self._use_bias = False
        self.notes: list[str] = []

    def entries(self, path: Path, above: tuple[Path, ...]) -> Iterator[Found | LeftOut]:
        above = (*above, path.resolve())
        for place, token in _joined(path):
            option, _, value = token.partition("=")
            if option == "--batch":
                yield from self._batch(place, value, path, above)
            elif option.startswith("--"):
                self._option(place, option, value)
            else:
                try:
                    yield Found(self._layer(token), place)
                except (DescriptorError, LayerError) as problem:
                    yield LeftOut(place, f"{shown(token)}: {problem}")

    def _layer(self, token: str) -> Layer:
        layer = parse(token)
        size = self._batch_size or layer.batch_size
        return replace(layer, batch_size=size, use_bias=self._use_bias)

    def _option(self, place: str, option: str, value: str) -> None:
        if option == "--mb" and value.isdecimal() and len(value) < 10:
            self._batch_size = int(value)
        elif option == "--dir":
            self._use_bias = bool({"FWD_B", "BWD_WB"} & {*value.split(",")})
        elif option == "--reset":
            self._batch_size, self._use_bias = 0, False
        else:
            self.notes.append(f"{place}: the option {shown(option)} is not followed")

    def _batch(
        self, place: str, value: str, path: Path, above: tuple[Path, ...]
    ) -> Iterator[Found | LeftOut]:
        """Read a named batch file, relative to the file that names it.

        Files outside of the first file's folder are left out.
        """
        if problem := self._problem(path.parent / value, above):
            yield LeftOut(place, f"--batch={shown(value)}: {problem}")
            return
        try:
            yield from self.entries(path.parent / value, above)
        except ImportSourceError as error:
            yield LeftOut(place, error.message)

    def _problem(self, named: Path, above: tuple[Path, ...]) -> str | None:
        """Say why a batch file is not read; None if it is."""
        try:
            real, is_file = named.resolve(), named.is_file()
        except (OSError, ValueError):  # a name too long, or with a NUL
            return "there is no such file"
        if not real.is_relative_to(self._top):
            return f"it lies outside of {self._top.name}: import that file itself"
        if real in above:
            return "that file names this one"
        if len(above) >= MAX_DEPTH:
            return f"more than {MAX_DEPTH} files name one another"
        return None if is_file else "there is no such file"


# Tokens


def _joined(path: Path) -> Iterator[tuple[str, str]]:
    """Yield place and token of a file. A token ending in a backslash goes on in the next line."""
    begun, where = "", ""
    for number, line in lines(path):
        for token, continues in _tokens(line):
            where = where or f"{path.name}:{number}"
            begun += token
            if not continues:
                yield where, begun
                begun, where = "", ""
    if begun:
        yield where, begun


def _tokens(line: str) -> Iterator[tuple[str, bool]]:
    """Yield each token of a line, and whether it goes on in the next line.

    A token that starts with `#` begins a comment.
    """
    for token in line.split():
        if token.startswith("#"):
            return
        yield (token[:-1], True) if token.endswith("\\") else (token, False)


def _is_descriptor(token: str) -> bool:
    """Return whether a token looks like a descriptor, right or wrong."""
    return re.match(r"(mb|ic|oc|i[dhw]|k[dhw]|g)\d", token) is not None


# A descriptor


def parse(descriptor: str) -> Layer:
    """Return the layer of a 2-D descriptor, whose output shape must follow from its sizes.

    Raises DescriptorError for any other descriptor, and LayerError for values that no convolution
    can have.
    """
    fields, name = _fields(descriptor)
    if any(key in fields for key in _DEPTH_KEYS):
        raise DescriptorError("found a 3-D convolution, expected 2-D")
    if "ih" not in fields and "kh" not in fields and "iw" in fields:
        raise DescriptorError("found a 1-D convolution (no height), expected 2-D")
    if not any(key in fields for key in ("iw", "ow", "kw", "sw", "pw", "dw")):
        heights = [key for key in fields if key.endswith("h")]
        fields |= {f"{key[:-1]}w": fields[key] for key in heights}
    missing = [key for key in ("ic", "oc", "ih", "iw", "kh", "kw") if key not in fields]
    if missing:
        raise DescriptorError(f"it has no {' and no '.join(missing)}")
    name, count = _without_times(name)
    (ih, top, bottom), (iw, left, right) = (_axis(fields, axis) for axis in "hw")
    layer = Layer(
        name=name or descriptor.partition("n")[0].strip("_"),
        input_shape=(ih, iw, fields["ic"]),
        filters=fields["oc"],
        kernel_size=(fields["kh"], fields["kw"]),
        strides=(fields.get("sh", 1), fields.get("sw", 1)),
        padding=written(((top, bottom), (left, right))),
        dilation_rate=(fields.get("dh", 0) + 1, fields.get("dw", 0) + 1),
        groups=fields["g"],
        batch_size=fields["mb"],
        count=count,
    )
    said = (fields.get("oh", layer.output_size[0]), fields.get("ow", layer.output_size[1]))
    if layer.output_size != said:
        raise DescriptorError(f"its output is {said}, but its sizes give {layer.output_size}")
    return layer


def _fields(descriptor: str) -> tuple[Fields, str]:
    """Return the numbers of a descriptor by key, and its name."""
    fields: Fields = dict(_DEFAULT)
    at, name = 0, ""
    while at < len(descriptor):
        match = _KEY.match(descriptor, at)
        if match is None:
            raise DescriptorError(f"found {shown(descriptor[at:])!r}, expected a key and a number")
        key, number, is_name = match.groups()
        if is_name:
            name = descriptor[match.end() :]
            if len(name) > 1 and name[0] == name[-1] == '"':
                name = name[1:-1]
            break
        if key is not None:
            if len(number) > len(str(MAX_NUMBER)) or int(number) > MAX_NUMBER:
                raise DescriptorError(f"{key}: the number is too large")
            fields[key] = int(number)
        at = match.end()
    return fields, name


def _without_times(name: str) -> tuple[str, int]:
    """Split a name from its count: `conv2*3` is the layer conv2, three times in its network."""
    times = _TIMES.search(name)
    if times is None or not 1 <= int(times[1][:9]) <= MAX_NUMBER or len(times[1]) > 9:
        return name, 1
    return name[: times.start()], int(times[1])


def _axis(fields: Fields, axis: str) -> tuple[int, int, int]:
    """Return the input size of one axis, and the pads before and after it.

    A pad that is not given is the one that centres the output. An output that is not given follows
    from the pad. Both divisions truncate, as in C.
    """
    size, taps = fields[f"i{axis}"], fields[f"k{axis}"]
    stride, dilation = fields.get(f"s{axis}", 1), fields.get(f"d{axis}", 0)
    if min(size, taps, stride) < 1 or dilation < 0:
        raise DescriptorError(f"sizes, kernel and strides ({axis}) must be at least 1")
    span = (taps - 1) * (dilation + 1) + 1
    output, before = fields.get(f"o{axis}"), fields.get(f"p{axis}")
    if output is None:
        before = before or 0
        output = _divided(size - span + 2 * before, stride) + 1
    elif before is None:
        before = _divided((output - 1) * stride - size + span, 2)
    if output < 1:
        raise DescriptorError(f"the output would be empty ({axis})")
    if before < 0:
        raise DescriptorError(f"p{axis} would be {before}: the input would be cut, not padded")
    after = (output - 1) * stride - size + span - before
    return size, before, _right_pad(before, after, stride, axis)


def _divided(number: int, by: int) -> int:
    """Divide and truncate towards zero."""
    return number // by if number >= 0 else -(-number // by)


def _right_pad(before: int, after: int, stride: int, axis: str) -> int:
    """Choose the pad after the input; `after` and up to `stride` - 1 more give the same output.

    It is equal to the pad before if possible, as in most frameworks, and otherwise the smallest one
    that is not negative.
    """
    if after <= before < after + stride:
        return before
    if after >= 0:
        return after
    if after > -stride:
        return 0
    raise DescriptorError(
        f"its output leaves {-after} of the input's last {'rows' if axis == 'h' else 'columns'} "
        "unused: that needs a negative pad"
    )


# Writing


def unsupported(layer: Layer) -> str | None:
    """Say why benchdnn cannot run this layer on a CPU; None if it can."""
    return "benchdnn has no float64 convolution on a CPU" if layer.dtype == "float64" else None


def describe(layer: Layer) -> str:
    """Return the descriptor of a layer, with every key, so that nothing is left to defaults.

    White space in the name becomes `_`, because it would end the descriptor.
    """
    (top, _), (left, _) = layer.pads
    axes = (
        f"i{axis}{layer.input_size[i]}o{axis}{layer.output_size[i]}k{axis}{layer.kernel_size[i]}"
        f"s{axis}{layer.strides[i]}p{axis}{pad}d{axis}{layer.dilation_rate[i] - 1}"
        for i, (axis, pad) in enumerate((("h", top), ("w", left)))
    )
    name = re.sub(r"\s", "_", layer.name)
    if layer.count > 1 or _TIMES.search(name):
        name += f"*{layer.count}"
    head = f"mb{layer.batch_size}_g{layer.groups}ic{layer.channels}oc{layer.filters}"
    return f'{head}_{"_".join(axes)}_n"{name}"'


def directions(layer: Layer, passes: Sequence[Pass]) -> str:
    """Return the value of `--dir` for some passes. Only the forward pass adds the bias."""
    forward = "FWD_B" if layer.use_bias else "FWD_D"
    names = {
        Pass.FORWARD: forward,
        Pass.INPUT_GRADIENT: "BWD_D",
        Pass.KERNEL_GRADIENT: "BWD_W",
    }
    return ",".join(names[pass_] for pass_ in passes)


def write(suite: Suite) -> tuple[str, tuple[LeftOut, ...]]:
    """Return a batch file of a suite's layers, and the layers that it cannot have."""
    lines_, left_out, directed = [], [], ""
    for layer in suite.layers:
        if reason := unsupported(layer):
            left_out.append(LeftOut(layer.name, reason))
            continue
        direction = directions(layer, suite.passes)
        if direction != directed:
            lines_.append(f"--dir={direction}")
            directed = direction
        lines_.append(describe(layer))
    head = (
        f"# {suite.name}, written by convbench {__version__} from {Path(suite.source).name}",
        "# benchdnn --conv --mode=P --batch=THIS_FILE",
    )
    return "\n".join([*map(_comment, head), *lines_]) + "\n", tuple(left_out)


def _comment(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)
