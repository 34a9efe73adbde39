"""Read Keras models: from keras.applications, from a .keras file, or from somebody's function.

The model is traced once, without being run, and the shapes that reach its convolutions are noted.
This works for nested, shared and subclassed models as well, and needs no weights. A ZeroPadding2D
whose output goes straight into a convolution becomes its pads. A SeparableConv2D becomes its two
convolutions.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast

from convbench.errors import LayerError
from convbench.importers.contract import Found, ImportSourceError, LeftOut, Reading, Source
from convbench.importers.padding import written
from convbench.importers.text import shown
from convbench.own_code.description import OwnCode
from convbench.own_code.files import import_code
from convbench.own_code.saying import describe_exception
from convbench.problem.layer import ITEMSIZE, Dtype, Layer, Pads, Pair
from convbench.runtimes.tensorflow import start

APPLICATION = "keras:"
"""Beginning of a source that names a model of keras.applications."""

BATCH_SIZE = 32
"""Batch size of models that leave it open. It is Keras's own default."""

NOT_2D = {
    "Conv1D": "1-D",
    "Conv3D": "3-D",
    "DepthwiseConv1D": "1-D",
    "SeparableConv1D": "1-D",
    "Conv1DTranspose": "transposed",
    "Conv2DTranspose": "transposed",
    "Conv3DTranspose": "transposed",
    "ConvLSTM1D": "recurrent",
    "ConvLSTM2D": "recurrent",
    "ConvLSTM3D": "recurrent",
}
"""Kinds of Keras's convolutions that are left out, by the name of their class."""


def claims(source: Source) -> bool:
    """Return whether a source names a Keras model.

    It does as keras:NAME, FILE.keras, FILE.py:FUNCTION or package.module:FUNCTION.
    """
    if source.name.startswith(APPLICATION):
        return True
    if source.head is not None:
        return source.path.suffix == ".keras"
    return OwnCode.is_spelled(source.name)


def read(source: Source) -> Reading:
    # A GPU would only cost time: nothing is computed here.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with _silence():
        start(1)
        import keras

    with contextlib.redirect_stdout(sys.stderr):  # the model's code may print; stdout is for data
        model = _model(source)
        calls = _traced(model, _input_shapes(model, source), source.name)
    notes: dict[str, None] = {}
    entries = [entry for call in calls for entry in _entries(call, notes)]
    entries += _uncalled(model, calls)
    return Reading.of(entries, tuple(notes), (f"keras {keras.__version__}",))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discard what is written to the file of stderr for a while.

    TensorFlow logs to that file while it starts, whatever its options are.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# Models


def _model(source: Source) -> Any:
    if source.name.startswith(APPLICATION):
        return _application(source)
    if source.head is not None:
        return _saved(source)
    return _returned(source)


def _application(source: Source) -> Any:
    import keras

    name = source.name.removeprefix(APPLICATION)
    known = [key for key, value in vars(keras.applications).items() if _is_function(value)]
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.4)
        raise ImportSourceError(
            f"keras.applications has no {name!r}",
            hint=(f"did you mean keras:{close[0]}? " if close else "")
            + f"It has {', '.join(sorted(known))}",
        )
    shape = {"input_shape": source.input_shape} if source.input_shape else {}
    return _tried(
        f"keras.applications.{name}",
        lambda: getattr(keras.applications, name)(weights=None, **shape),
    )


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, type)


def _saved(source: Source) -> Any:
    import keras

    if source.head is None or not source.head.startswith(b"PK\x03\x04"):
        raise ImportSourceError(
            f"{source.name}: this is not a Keras model, which is a zip archive",
            hint="save one with model.save('model.keras'); pickles and HDF5 files are not read",
        )
    return _tried(
        source.name, lambda: keras.saving.load_model(source.path, compile=False, safe_mode=True)
    )


def _returned(source: Source) -> Any:
    """Call a function in this process and return the model that it makes."""
    code = OwnCode.of(source.name)
    problem = code.spelling_problem or ("" if code.attribute else "it names no function")
    if problem:
        raise ImportSourceError(
            f"{source.name}: {problem}", hint="package.module:function, or FILE.py:function"
        )

    def call() -> Any:
        function = getattr(import_code(code), code.attribute, None)
        if not callable(function):
            raise ImportSourceError(f"{code.where} has no function {code.attribute}")
        return function()

    model = _tried(source.name, call)
    import keras

    if not isinstance(model, keras.Model):
        raise ImportSourceError(
            f"{source.name} returns a value of type {type(model).__name__}, expected a Keras model"
        )
    return model


def _tried(what: str, make: Callable[[], Any]) -> Any:
    """Return what somebody's code or file makes.

    Raises ImportSourceError, which says how it failed.
    """
    try:
        return make()
    except ImportSourceError:
        raise
    except (Exception, SystemExit) as error:
        raise ImportSourceError(f"{what}: {shown(describe_exception(error), 400)}") from error


def _input_shapes(model: Any, source: Source) -> Any:
    """Return the shapes of a model's inputs, (batch, ...), in the structure of its inputs."""
    import keras

    batch = source.batch_size or BATCH_SIZE
    inputs = getattr(model, "_inputs_struct", getattr(model, "inputs", None))
    if inputs is None:
        if source.input_shape is None:
            raise ImportSourceError(
                f"{source.name} does not tell the shape of its input",
                hint="give it: --input-shape 224,224,3",
            )
        return keras.KerasTensor((batch, *source.input_shape))

    def filled(tensor: Any) -> Any:
        sizes = list(tensor.shape[1:])
        if source.input_shape is not None and len(sizes) == len(source.input_shape):
            sizes = [
                size if size is not None else given
                for size, given in zip(sizes, source.input_shape, strict=True)
            ]
        if None in sizes:
            raise ImportSourceError(
                f"{source.name}: its input {tensor.name} has the shape {tuple(tensor.shape)}",
                hint="give the sizes that are None: --input-shape 224,224,3",
            )
        images = source.batch_size or tensor.shape[0] or BATCH_SIZE
        return keras.KerasTensor((images, *sizes), dtype=tensor.dtype)

    return keras.tree.map_structure(filled, inputs)


# Tracing


@dataclass(frozen=True)
class _Call:
    """A call of a layer, on an input that had `shape` before `pads` were added to it."""

    layer: Any
    shape: tuple[int, ...]
    pads: Pads


def _traced(model: Any, inputs: Any, name: str) -> list[_Call]:
    """Trace a model, and return every call of a convolution in order."""
    import keras
    import tensorflow as tf

    calls: list[_Call] = []
    # Keyed by the tensor's id. The tensor is kept, since another one could get its id.
    padded: dict[int, tuple[Any, tuple[int, ...], Pads]] = {}
    original = keras.layers.Layer.__call__

    def noting(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(layer, *args, **kwargs)
        given = args[0] if args else kwargs.get("inputs")
        if given is None or not hasattr(given, "shape"):
            return result
        _, shape, pads = padded.get(id(given), (given, tuple(given.shape), ((0, 0), (0, 0))))
        if isinstance(layer, keras.layers.ZeroPadding2D):
            both = cast(Pads, tuple(map(tuple, layer.padding)))
            padded[id(result)] = (result, shape, _added(pads, both))
        elif _is_convolution(layer):
            calls.append(_Call(layer, shape, pads))
        return result

    specs = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), inputs)

    def trace() -> None:
        _tried(name, lambda: tf.function(_calling(model)).get_concrete_function(specs))

    if not all(layer.built for layer in model._flatten_layers()):
        trace()  # Keras calls layers once more while it builds them; those calls are not noted
    keras.layers.Layer.__call__ = noting
    try:
        trace()
    finally:
        keras.layers.Layer.__call__ = original
    return calls


def _uncalled(model: Any, calls: list[_Call]) -> list[LeftOut]:
    """List the model's convolutions that were not called as layers."""
    called = {id(call.layer) for call in calls}
    return [
        LeftOut(_place(layer), "it is not called as a layer: unused, or inside of TimeDistributed")
        for layer in model._flatten_layers()
        if _is_convolution(layer) and id(layer) not in called
    ]


def _place(layer: Any) -> str:
    return f"{layer.path} ({type(layer).__name__})"


def _calling(model: Any) -> Callable[[Any], Any]:
    """Make a new function around a model, so that tracing leaves no variables on the model."""
    return lambda given: model(given, training=False)


def _is_convolution(layer: Any) -> bool:
    """Return whether a layer is one of Keras's convolutions, or of a class derived from one."""
    names = {kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("keras.")}
    return bool(names & {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", *NOT_2D})


def _added(one: Pads, other: Pads) -> Pads:
    (top, bottom), (left, right) = one
    (more_top, more_bottom), (more_left, more_right) = other
    return (top + more_top, bottom + more_bottom), (left + more_left, right + more_right)


# Layers


def _entries(call: _Call, notes: dict[str, None]) -> Iterator[Found | LeftOut]:
    import keras

    layer = call.layer
    place = _place(layer)
    names = {kind.__name__ for kind in type(layer).__mro__}
    if other := next((NOT_2D[name] for name in NOT_2D if name in names), None):
        article = "a" if other[0].isdigit() or other[0] not in "aeiou" else "an"
        found = f"found {article} {other} convolution"
        yield LeftOut(place, f"{found}, expected Conv2D or DepthwiseConv2D")
        return
    try:
        dtype = layer.compute_dtype
        if dtype not in ITEMSIZE:
            notes[f"layers that compute in {dtype} are read as float32"] = None
        first = _layer(call, dtype if dtype in ITEMSIZE else "float32")
        if isinstance(layer, keras.layers.SeparableConv2D):
            depthwise = replace(first, name=f"{layer.name}/depthwise", use_bias=False)
            yield Found(depthwise, place)
            yield Found(_pointwise(layer, depthwise), place)
        else:
            yield Found(first, place)
    except LayerError as problem:
        yield LeftOut(place, problem.message)


def _layer(call: _Call, dtype: str) -> Layer:
    """Return the convolution of a call, for a SeparableConv2D the first of its two."""
    layer = call.layer
    batch, *sizes = call.shape
    if layer.data_format == "channels_first":
        sizes = [*sizes[1:], sizes[0]]
    height, width, channels = sizes
    multiplier = getattr(layer, "depth_multiplier", None)
    plain = Layer(
        name=layer.name,
        input_shape=(height, width, channels),
        filters=layer.filters if multiplier is None else channels * multiplier,
        kernel_size=cast(Pair, tuple(layer.kernel_size)),
        strides=cast(Pair, tuple(layer.strides)),
        padding=written(call.pads),
        dilation_rate=cast(Pair, tuple(layer.dilation_rate)),
        groups=layer.groups if multiplier is None else channels,
        use_bias=bool(layer.use_bias),
        batch_size=batch,
        dtype=cast(Dtype, dtype),
    )
    if layer.padding == "valid":
        return plain
    if call.pads == ((0, 0), (0, 0)):
        return replace(plain, padding="same")
    # `same` adds its pads to those of ZeroPadding2D.
    inner = replace(plain, input_shape=(*plain.padded_size, channels), padding="same")
    return replace(plain, padding=_added(call.pads, inner.pads))


def _pointwise(layer: Any, depthwise: Layer) -> Layer:
    return Layer(
        name=f"{layer.name}/pointwise",
        input_shape=depthwise.output_shape,
        filters=layer.filters,
        kernel_size=(1, 1),
        use_bias=bool(layer.use_bias),
        batch_size=depthwise.batch_size,
        dtype=depthwise.dtype,
    )
