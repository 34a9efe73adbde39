"""Build the same network in Keras: compile it, fit it, carry weights to ours and back.

TensorFlow is imported inside functions, so that importing this module is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.runtimes.tensorflow import start
from convbench.training.network import (
    SGD,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    Network,
    Place,
    ReLU,
    convolution,
)
from convbench.training.trainer import State

if TYPE_CHECKING:
    import keras

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


class KerasModel:
    """The network as a Keras user writes it: Sequential, compiled, fitted on arrays."""

    def __init__(
        self, network: Network, threads: int, weights: Mapping[str, Array], jit_compile: bool
    ) -> None:
        start(threads)
        import keras

        keras.config.set_floatx(network.dtype)  # Keras gives this type to the learning rate, too
        self.network = network
        self.keras = sequential(network)
        self.keras.compile(
            optimizer=_optimizer(network),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        self.set_weights(weights)

    def step(self, images: Array, labels: Labels) -> float:
        """Take one step, and return the loss before it."""
        self.keras.reset_metrics()
        return float(self.keras.train_on_batch(images, labels))

    def fit(self, images: Array, labels: Labels) -> None:
        """Train for one epoch, in an order that Keras shuffles."""
        self.keras.fit(images, labels, batch_size=self.network.batch_size, verbose=0)

    def logits(self, images: Array) -> Array:
        """Return the outputs of the last layer, (batch, classes)."""
        return np.asarray(self.keras.predict_on_batch(images))

    @property
    def parameters(self) -> dict[str, Array]:
        """The weights, by the names of `network.parameters`."""
        return dict(zip(self.network.parameters, self.keras.get_weights(), strict=True))

    @property
    def optimizer_state(self) -> list[Array]:
        """The optimiser's variables, among them the learning rate and the number of steps."""
        self.keras.optimizer.build(self.keras.trainable_variables)
        return [np.array(variable) for variable in self.keras.optimizer.variables]

    @optimizer_state.setter
    def optimizer_state(self, state: list[Array]) -> None:
        for variable, value in zip(self.keras.optimizer.variables, state, strict=True):
            variable.assign(value)

    def go_on_from(self, state: State) -> None:
        """Take over the weights, optimiser's vectors and number of steps of another training."""
        self.set_weights(state.weights)
        optimizer = self.keras.optimizer
        optimizer.build(self.keras.trainable_variables)
        optimizer.iterations.assign(len(state.losses))
        for kind, vectors in state.optimizer.items():
            variables = [v for v in optimizer.variables if v.name.endswith(f"_{kind}")]
            for variable, name in zip(variables, self.network.parameters, strict=True):
                variable.assign(vectors[name])

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Set the weights, given by parameter."""
        self.keras.set_weights([weights[name] for name in self.network.parameters])


def sequential(network: Network) -> keras.Sequential:
    """Return the keras.Sequential of a network, in the network's dtype, not compiled."""
    import keras

    layers = [keras.layers.Input(network.input_shape)]
    for place in network.places:
        layers += _layers(place, network)
    return keras.Sequential(layers, name=_identifier(network.name))


def weights_of(model: Any, network: Network) -> dict[str, Array]:
    """Return the weights of a Keras model by parameter.

    Raises TrainingError if their shapes are not those of the network.
    """
    found = [tuple(array.shape) for array in model.weights]
    expected = list(network.parameters.values())
    if found != expected:
        raise TrainingError(
            f"the Keras model is not of the shape of {network.name}: found weights of {found}, "
            f"expected {expected}"
        )
    return dict(zip(network.parameters, model.get_weights(), strict=True))


def load(path: Path, network: Network) -> dict[str, Array]:
    """Return the weights in a `.keras` file, by parameter.

    Raises TrainingError if the file cannot be loaded, or is another network's.
    """
    start(1)
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"{path}: found no Keras model that can be loaded: {line}",
            hint="name a file that `model.save` or --export-keras wrote",
        ) from None
    return weights_of(model, network)


def save(network: Network, weights: Mapping[str, Array], path: Path) -> None:
    """Save the network and its weights as a `.keras` file. No bit of the weights changes."""
    start(1)
    import keras

    keras.config.set_floatx(network.dtype)
    model = sequential(network)
    model.set_weights([weights[name] for name in network.parameters])
    model.save(path)


def _layers(place: Place, network: Network) -> list[Any]:
    import keras

    kind, common = place.kind, {"name": place.name, "dtype": network.dtype}
    if isinstance(kind, ReLU):
        return [keras.layers.ReLU(**common)]
    if isinstance(kind, Flatten):
        return [keras.layers.Flatten(**common)]
    if isinstance(kind, Dense):
        return [keras.layers.Dense(kind.units, use_bias=kind.use_bias, **common)]
    pads = convolution(place, 1).pads if isinstance(kind, Conv2D) else None
    padding = kind.padding if isinstance(kind.padding, str) else "valid"
    before = [] if kind.padding == padding else [keras.layers.ZeroPadding2D(pads)]
    if isinstance(kind, MaxPooling2D):
        return [keras.layers.MaxPooling2D(kind.pool_size, kind.strides, padding, **common)]
    return [
        *before,
        keras.layers.Conv2D(
            kind.filters,
            kind.kernel_size,
            strides=kind.strides,
            padding=padding,
            dilation_rate=kind.dilation_rate,
            groups=kind.groups,
            use_bias=kind.use_bias,
            **common,
        ),
    ]


def _optimizer(network: Network) -> Any:
    import keras

    given = network.optimizer
    if isinstance(given, SGD):
        return keras.optimizers.SGD(given.learning_rate, given.momentum, given.nesterov)
    return keras.optimizers.Adam(
        given.learning_rate, given.beta_1, given.beta_2, epsilon=given.epsilon
    )


def _identifier(name: str) -> str:
    """Return a name that Keras accepts: every character that is no letter or digit becomes _."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name) or "network"
