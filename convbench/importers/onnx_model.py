"""Read the Conv nodes of ONNX models, with shapes inferred. The package onnx is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from convbench.errors import LayerError
from convbench.importers.contract import Found, ImportSourceError, LeftOut, Reading, Source
from convbench.importers.padding import written
from convbench.problem.layer import Dtype, Layer, Padding, Pair

BATCH_SIZE = 1
"""Batch size of models that leave it open. Most are exported to run on one image at a time."""

NOT_CONV = {
    "ConvTranspose": "a transposed convolution",
    "ConvInteger": "a convolution of integers",
    "QLinearConv": "a quantised convolution",
    "DeformConv": "a deformable convolution",
    "FusedConv": "a fused convolution",
}
"""Operators that are left out, with what they compute."""


class _NodeError(ValueError):
    """A node that is no layer that convbench knows; the text says why."""


def claims(source: Source) -> bool:
    return source.head is not None and source.path.suffix == ".onnx"


def read(source: Source) -> Reading:
    onnx = _package()
    try:
        model = onnx.load(str(source.path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no nodes")
        _fill_in(model.graph, source)
        inferred = onnx.shape_inference.infer_shapes(model)
    except ImportSourceError:
        raise
    except Exception as error:  # noqa: BLE001 - protobuf's errors have no common base
        raise ImportSourceError(
            f"{source.name}: this is not an ONNX model that can be read: {_first_line(error)}"
        ) from None
    reader = _Graph(onnx, inferred.graph)
    for function in inferred.functions:
        reader.notes[f"the inside of the function {function.name} is not read"] = None
    entries = list(reader.entries(source.path.name))
    return Reading.of(entries, tuple(reader.notes), (f"onnx {onnx.__version__}",))


def _package() -> Any:
    try:
        import onnx
        import onnx.shape_inference
    except ImportError:
        raise ImportSourceError(
            "reading ONNX models needs the package onnx",
            hint="pip install 'convbench[onnx]'",
        ) from None
    return onnx


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fill_in(graph: Any, source: Source) -> None:
    """Fill in the inputs' open sizes from what the user gave, and drop the inferred shapes."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {name for node in graph.node if "Conv" in node.op_type for name in node.input[1:]}
    for given in graph.input:
        sizes = given.type.tensor_type.shape.dim
        if given.name in weights or len(sizes) != 4:
            continue
        height, width, channels = source.input_shape or (0, 0, 0)
        said = (source.batch_size or BATCH_SIZE, channels, height, width)
        for place, (size, number) in enumerate(zip(sizes, said, strict=True)):
            if number and (size.dim_value < 1 or (place == 0 and source.batch_size)):
                size.Clear()
                size.dim_value = number
        if any(size.dim_value < 1 for size in sizes):
            raise ImportSourceError(
                f"{source.name}: its input {given.name} leaves sizes open",
                hint="give them: --input-shape 224,224,3 (height, width, channels)",
            )
    del graph.value_info[:]


class _Graph:
    """A graph, with the shapes and types of its values by name."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._onnx = onnx
        self._nodes = graph.node
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self._shapes[value.name] = tuple(size.dim_value for size in tensor.shape.dim)
            self._types[value.name] = tensor.elem_type
        for tensor in graph.initializer:
            self._shapes[tensor.name] = tuple(tensor.dims)
            self._types[tensor.name] = tensor.data_type
        self.notes: dict[str, None] = {}

    def entries(self, file: str) -> Iterator[Found | LeftOut]:
        for number, node in enumerate(self._nodes):
            name = node.name or f"{node.op_type}_{number}"
            place = f"{file}, node {number} ({name})"
            if node.op_type in NOT_CONV:
                yield LeftOut(place, f"found {NOT_CONV[node.op_type]}, expected Conv")
            if any(attribute.HasField("g") for attribute in node.attribute):
                self.notes[f"the inside of {name} ({node.op_type}) is not read"] = None
            if node.op_type != "Conv":
                continue
            try:
                yield Found(self._layer(name, node), place)
            except (_NodeError, LayerError) as problem:
                yield LeftOut(place, str(problem))

    def _layer(self, name: str, node: Any) -> Layer:
        if len(node.input) < 2:
            raise _NodeError("it has no kernel")
        shape, kernel = (self._shapes.get(given, ()) for given in node.input[:2])
        if len(kernel) in (3, 5):
            raise _NodeError(f"found a {len(kernel) - 2}-D convolution, expected 2-D")
        if len(shape) != 4 or len(kernel) != 4 or min(*shape, *kernel) < 1:
            raise _NodeError("its shapes cannot be inferred")
        batch, channels, height, width = shape
        filters, of_group, kh, kw = kernel
        given = {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}
        groups = given.get("group", 1)
        for key, length in (("strides", 2), ("dilations", 2), ("pads", 4), ("kernel_shape", 2)):
            if len(given.get(key, (0,) * length)) != length:
                raise _NodeError(f"{key}: found {list(given[key])}, expected {length} numbers")
        if list(given.get("kernel_shape", (kh, kw))) != [kh, kw]:
            raise _NodeError(
                f"its kernel_shape is {given['kernel_shape']}, but its kernel is {kernel}"
            )
        if of_group * groups != channels:
            raise _NodeError(
                f"its kernel takes {of_group * groups} channels, but its input has {channels}"
            )
        layer = Layer(
            name=name,
            input_shape=(height, width, channels),
            filters=filters,
            kernel_size=(kh, kw),
            strides=cast(Pair, tuple(given.get("strides", (1, 1)))),
            padding=_explicit_pads(given.get("pads", (0, 0, 0, 0))),
            dilation_rate=cast(Pair, tuple(given.get("dilations", (1, 1)))),
            groups=groups,
            use_bias=len(node.input) > 2 and bool(node.input[2]),
            batch_size=batch,
            dtype=self._dtype(node.input[0]),
        )
        return _auto_padded(layer, given.get("auto_pad", b"NOTSET").decode())

    def _dtype(self, value: str) -> Dtype:
        types = self._onnx.TensorProto
        found = self._types.get(value, types.FLOAT)
        if found == types.DOUBLE:
            return "float64"
        if found != types.FLOAT:
            name = types.DataType.Name(found).lower()
            self.notes[f"layers that compute in {name} are read as float32"] = None
        return "float32"


def _explicit_pads(pads: Any) -> Padding:
    top, left, bottom, right = pads
    return written(((top, bottom), (left, right)))


def _auto_padded(layer: Layer, rule: str) -> Layer:
    """Return the layer with the pads of `auto_pad`, ONNX's older way to give them."""
    if rule == "VALID":
        return replace(layer, padding="valid")
    if rule not in ("SAME_UPPER", "SAME_LOWER"):
        return layer
    same = replace(layer, padding="same")
    if rule == "SAME_UPPER":
        return same
    (top, bottom), (left, right) = same.pads
    return replace(layer, padding=written(((bottom, top), (right, left))))
