"""Describe a network as its YAML file does: its layers, their shapes, its optimiser. No NumPy.

Names, defaults and definitions are those of Keras. Shapes are those of one image: (height, width,
channels), or (features,) after a Flatten. The loss is the softmax cross-entropy of the last layer's
outputs (logits) and the labels, as the mean over the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from convbench.errors import LayerError, NetworkError
from convbench.problem.layer import Dtype, Layer, Padding, Pair

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv2D:
    """A convolution, with the arguments of Keras's Conv2D."""

    filters: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation_rate: Pair = (1, 1)
    groups: int = 1
    use_bias: bool = True


@dataclass(frozen=True)
class ReLU:
    """The function max(x, 0) of each element."""


@dataclass(frozen=True)
class MaxPooling2D:
    """The largest element of each window. `strides` of None are equal to `pool_size`."""

    pool_size: Pair = (2, 2)
    strides: Pair | None = None
    padding: Padding = "valid"


@dataclass(frozen=True)
class Flatten:
    """An image as one row of features."""


@dataclass(frozen=True)
class Dense:
    """A matrix product of the features with a kernel (features, units)."""

    units: int
    use_bias: bool = True


Kind = Conv2D | ReLU | MaxPooling2D | Flatten | Dense

NAMES: dict[type[Kind], str] = {
    Conv2D: "conv2d",
    ReLU: "relu",
    MaxPooling2D: "max_pooling2d",
    Flatten: "flatten",
    Dense: "dense",
}
"""Name of each kind of layer in files, reports and saved weights."""


@dataclass(frozen=True)
class SGD:
    """Gradient descent: w -= learning_rate * g.

    With momentum, v = momentum * v - learning_rate * g and w += v. With `nesterov`, the new v goes
    into w += momentum * v - learning_rate * g.
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True)
class Adam:
    """Adam, as Kingma and Ba give it at the end of section 2 of Adam: a method for stochastic
    optimization (2015).

    At step t: m += (1 - beta_1) (g - m), v += (1 - beta_2) (g^2 - v),
    w -= learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon).
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


Optimizer = SGD | Adam


@dataclass(frozen=True)
class Place:
    """A layer at its place in a network: its name there, and the shapes of its input and output."""

    name: str
    kind: Kind
    input_shape: Shape
    output_shape: Shape

    @property
    def parameters(self) -> dict[str, Shape]:
        """Shapes of the layer's kernel and bias, as Keras stores them."""
        if isinstance(self.kind, Conv2D):
            layer = convolution(self, batch_size=1)
            return _with_bias(layer.kernel_shape, self.kind.filters, self.kind.use_bias)
        if isinstance(self.kind, Dense):
            shape = (*self.input_shape, self.kind.units)
            return _with_bias(shape, self.kind.units, self.kind.use_bias)
        return {}


@dataclass(frozen=True)
class Network:
    """A network: its layers, and how it is trained.

    Creating one raises NetworkError if a layer does not fit the output of the layer before it, or
    if the last layer is not dense.
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Kind, ...]
    optimizer: Optimizer = Adam()
    batch_size: int = 32
    epochs: int = 1
    dtype: Dtype = "float32"
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.places[-1].output_shape) != 1 or not isinstance(self.layers[-1], Dense):
            last = len(self.layers) - 1
            raise NetworkError(
                ("layers", last),
                f"the last layer is {NAMES[type(self.layers[last])]}, expected a dense layer "
                "with a unit for each class",
            )

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every layer with its name (`conv2d_1`, counted by kind) and its shapes."""
        places: list[Place] = []
        shape: Shape = self.input_shape
        for index, kind in enumerate(self.layers):
            called = NAMES[type(kind)]
            number = sum(isinstance(place.kind, type(kind)) for place in places) + 1
            place = Place(f"{called}_{number}", kind, shape, ())
            try:
                shape = _output_shape(place)
            except LayerError as error:
                raise NetworkError(("layers", index, called, error.key), error.problem) from None
            except ValueError as error:
                raise NetworkError(("layers", index), str(error)) from None
            places.append(replace(place, output_shape=shape))
        return tuple(places)

    @property
    def classes(self) -> int:
        """Number of outputs of the last layer."""
        return self.places[-1].output_shape[0]

    @property
    def parameters(self) -> dict[str, Shape]:
        """Shapes by name (`conv2d_1/kernel`), in the order of Keras's `get_weights`."""
        return {
            f"{place.name}/{name}": shape
            for place in self.places
            for name, shape in place.parameters.items()
        }

    @property
    def parameter_count(self) -> int:
        """Number of elements of all parameters."""
        return sum(math.prod(shape) for shape in self.parameters.values())


def convolution(place: Place, batch_size: int, dtype: Dtype = "float32") -> Layer:
    """Return the layer of `convbench.problem` that a Conv2D at its place computes."""
    kind = place.kind
    if not isinstance(kind, Conv2D):
        raise TypeError(f"{place.name} is no convolution")
    return Layer(
        place.name,
        _image(place),
        kind.filters,
        kind.kernel_size,
        kind.strides,
        kind.padding,
        kind.dilation_rate,
        kind.groups,
        kind.use_bias,
        batch_size,
        dtype,
    )


def pooling(place: Place) -> Layer:
    """Return a convolution whose windows are those of a MaxPooling2D at its place."""
    kind = place.kind
    if not isinstance(kind, MaxPooling2D):
        raise TypeError(f"{place.name} is no pooling")
    image = _image(place)
    strides = kind.strides or kind.pool_size
    return Layer(place.name, image, image[2], kind.pool_size, strides, kind.padding)


def _output_shape(place: Place) -> Shape:
    """Return the shape of a layer's output. Raises LayerError or ValueError if it does not fit."""
    kind = place.kind
    if isinstance(kind, Conv2D):
        return convolution(place, batch_size=1).output_shape
    if isinstance(kind, MaxPooling2D):
        try:
            return pooling(place).output_shape
        except LayerError as error:
            if error.key != "kernel_size":
                raise
            (height, width), image = kind.pool_size, place.input_shape
            raise LayerError(
                "pool_size",
                f"a window of {height}x{width} does not fit the input of {image[0]}x{image[1]}: "
                "the output would be empty",
            ) from None
    if isinstance(kind, Flatten):
        return (math.prod(place.input_shape),)
    if isinstance(kind, Dense):
        if len(place.input_shape) != 1:
            raise ValueError("found dense on an image, expected flatten before it")
        return (kind.units,)
    return place.input_shape


def _image(place: Place) -> tuple[int, int, int]:
    if len(place.input_shape) != 3:
        raise ValueError(
            f"found {NAMES[type(place.kind)]} behind flatten or dense, expected it before them"
        )
    height, width, channels = place.input_shape
    return height, width, channels


def _with_bias(kernel: Shape, units: int, use_bias: bool) -> dict[str, Shape]:
    return {"kernel": kernel, "bias": (units,)} if use_bias else {"kernel": kernel}
