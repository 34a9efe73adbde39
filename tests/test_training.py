"""Test the network that trains: its gradients, its optimisers, and whether it follows Keras."""

import dataclasses
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convbench.errors import NetworkError, TrainingError
from convbench.implementations.registry import REGISTRY
from convbench.training import data
from convbench.training.following import CLOSE, FACTOR, SIDE, Following
from convbench.training.loss import softmax_cross_entropy
from convbench.training.model import Model, initial_weights
from convbench.training.network import (
    SGD,
    Adam,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    Network,
    ReLU,
)
from convbench.training.phases import Phase
from convbench.training.trainer import Trainer

SMALL = Network(
    "small",
    (10, 9, 1),
    (
        Conv2D(4, (3, 3)),
        ReLU(),
        MaxPooling2D(),
        Conv2D(6, (3, 2), padding="same"),
        ReLU(),
        Flatten(),
        Dense(5),
    ),
    batch_size=8,
)
IN_FLOAT64 = dataclasses.replace(SMALL, dtype="float64")


def _model(network, implementation="im2col", seed=0):
    return Model(network, REGISTRY.get(implementation), 1, initial_weights(network, seed))


def _batch(network, step, seed=0):
    """Draw images that scatter around one image of each class, so that they can be learned."""
    rng = np.random.default_rng([seed, step])
    means = np.random.default_rng(seed).random((network.classes, *network.input_shape))
    labels = rng.integers(0, network.classes, network.batch_size)
    noise = rng.standard_normal((network.batch_size, *network.input_shape))
    images = np.clip(means[labels] + 0.1 * noise, 0, 1).astype(np.float32)
    return images.astype(network.dtype), labels


# Gradients


@st.composite
def _networks(draw):
    """Draw small networks of every kind of layer, in float64."""
    size = st.integers(1, 3)
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "pool", "relu"]))
        padding = draw(st.sampled_from(["valid", "same"]))
        if kind == "conv":
            layers.append(
                Conv2D(
                    draw(size),
                    (draw(size), draw(size)),
                    (draw(st.integers(1, 2)),) * 2,
                    padding,
                    use_bias=draw(st.booleans()),
                )
            )
        elif kind == "pool":
            strides = draw(st.none() | st.tuples(size, size))
            layers.append(MaxPooling2D((draw(size), draw(size)), strides, padding))
        else:
            layers.append(ReLU())
    layers += [Flatten(), Dense(3, draw(st.booleans())), ReLU(), Dense(draw(st.integers(2, 4)))]
    shape = (draw(st.integers(4, 7)), draw(st.integers(4, 7)), draw(size))
    try:
        return Network("drawn", shape, tuple(layers), batch_size=3, dtype="float64")
    except NetworkError:  # the image becomes too small for a layer
        return Network(
            "drawn", (12, 12, 2), (Conv2D(2, (3, 3)), Flatten(), Dense(3)), dtype="float64"
        )


@settings(deadline=None)
@given(_networks(), st.integers(0, 99))
def test_gradients_agree_with_differences_of_the_loss(network, seed):
    model = _model(network, seed=seed)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters.values():
        parameter += 0.1 * rng.standard_normal(parameter.shape)  # biases start at 0
    images, labels = (
        rng.random((network.batch_size, *network.input_shape)),
        rng.integers(0, network.classes, network.batch_size),
    )
    model.update.step = lambda gradients: None
    model.step(images, labels)
    gradients = {name: array.copy() for name, array in model.gradients.items()}

    def loss():
        return softmax_cross_entropy(model.logits(images), labels, len(labels))[0]

    step = 1e-6
    for name, parameter in model.parameters.items():
        gradient = gradients[name]
        for index in rng.integers(0, parameter.size, 4):
            was = parameter.flat[index]
            parameter.flat[index] = was + step
            above = loss()
            parameter.flat[index] = was - step
            below = loss()
            parameter.flat[index] = was
            difference = (above - below) / (2 * step)
            # Where a ReLU or a maximum changes sides between the two, there is no derivative.
            left, right = (loss() - below) / step, (above - loss()) / step
            if abs(left - right) < 1e-4:
                assert gradient.flat[index] == pytest.approx(difference, abs=1e-7)


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize("implementation", ["im2col", "auto", "loop"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 2, 31, 70])
def test_threads_and_pieces_make_no_difference(implementation, threads, images):
    whole = _model(IN_FLOAT64, "loop")
    split = Model(IN_FLOAT64, REGISTRY.get(implementation), threads, initial_weights(IN_FLOAT64, 0))
    rng = np.random.default_rng(images)
    x, labels = rng.random((images, *SMALL.input_shape)), rng.integers(0, 5, images)
    for model in (whole, split):
        model.update.step = lambda gradients: None
    for _ in range(2):  # the second step writes into memory that has been used
        assert split.step(x, labels) == pytest.approx(whole.step(x, labels), rel=1e-12)
        assert np.allclose(split.logits(x), whole.logits(x), rtol=1e-11, atol=1e-13)
        for name, gradient in whole.gradients.items():
            assert np.allclose(split.gradients[name], gradient, rtol=1e-11, atol=1e-13)


def test_pooling_passes_the_gradient_to_the_first_of_equal_maxima():
    network = Network(
        "pool", (2, 4, 1), (Conv2D(1, (1, 1)), MaxPooling2D(), Flatten(), Dense(2)), dtype="float64"
    )
    pool = _model(network).replicas[0].layers[1]
    pool.forward(np.array([[1.0, 3, 5, 5], [3, 0, 5, 5]]).reshape(1, 2, 4, 1))
    gradient = pool.backward(np.array([2.0, 7]).reshape(1, 1, 2, 1), to_input=True)
    assert gradient.ravel().tolist() == [0, 2, 7, 0, 0, 0, 0, 0]


def test_the_loss_does_not_overflow():
    loss, gradient = softmax_cross_entropy(np.array([[1e4, 0], [0, 1e4]]), np.array([0, 0]), 2)
    assert loss == 5000
    assert gradient.tolist() == [[0, 0], [-0.5, 0.5]]


# Following Keras


def _keras(network, jit_compile=False, seed=0):
    from convbench.training.keras_model import KerasModel

    return KerasModel(network, 1, initial_weights(network, seed), jit_compile)


def _trainer(network, implementation, seed=0):
    """Return a trainer whose data are 60 batches from `_batch`."""
    batches = [_batch(network, step, seed) for step in range(60)]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    held_out = images[:8], labels[:8]
    dataset = data.Dataset("drawn", "", images.astype(np.float32), labels, *held_out)
    return Trainer(_model(network, implementation, seed), dataset, seed)


def _followed(network, trainer, steps):
    """Hold a float32 training against Keras, and return the comparison and the losses."""
    keras, exact = _keras(network), _keras(dataclasses.replace(network, dtype="float64"))
    following, order = Following(), None
    for _ in range(steps):
        if trainer.batch == 0:
            count, size = len(trainer.data.images), network.batch_size
            order = data.batches(count, size, trainer.epoch, trainer.seed)
        index, before = next(order), trainer.state
        images, labels = trainer.data.images[index], trainer.data.labels[index]
        for model in (keras, exact):
            model.go_on_from(before)
        loss = trainer.step()
        assert loss == pytest.approx(keras.step(images, labels), rel=1e-4)
        exact.step(images.astype(np.float64), labels)
        after = trainer.model.parameters
        following.compare_step(before.weights, after, exact.parameters, keras.parameters)
    return following, trainer.losses


OPTIMIZERS = [
    Adam(),
    Adam(0.01, 0.8, 0.95, 1e-4),
    SGD(),
    SGD(0.1),
    SGD(0.05, 0.9),
    SGD(0.05, 0.9, nesterov=True),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_hundred_steps_follow_keras_in_float64(optimizer):
    network = dataclasses.replace(IN_FLOAT64, optimizer=optimizer)
    ours, keras, following = _model(network), _keras(network), Following()
    for step in range(100):
        images, labels = _batch(network, step)
        assert ours.step(images, labels) == pytest.approx(keras.step(images, labels), rel=1e-9)
        following.compare(ours.parameters, keras.parameters)
    assert following.departed is None, following.departed
    assert following.worst.bound <= CLOSE * 10
    assert following.worst.over_bound > 0  # the two round differently


@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:], ids=str)
def test_steps_from_our_state_follow_keras(optimizer):
    network = dataclasses.replace(SMALL, optimizer=optimizer)
    following, _ = _followed(network, _trainer(network, "im2col"), 20)
    assert following.departed is None, following.departed


@pytest.mark.parametrize(
    "implementation", [pytest.param("loop", marks=pytest.mark.slow), "im2col", "auto"]
)
def test_a_hundred_steps_follow_keras_in_float32(implementation):
    following, losses = _followed(SMALL, _trainer(SMALL, implementation), 100)
    assert following.departed is None, following.departed
    assert 0 < following.worst.over_bound < 1
    assert np.mean(losses[-10:]) < 0.95 * losses[0]


@pytest.mark.parametrize("implementation", ["winograd", "winograd-2x2", "fft"])
def test_algorithms_that_are_not_exact_follow_in_float64(implementation):
    layers = (Conv2D(3, (3, 3)), ReLU(), Conv2D(4, (3, 3)), Flatten(), Dense(5))
    network = dataclasses.replace(IN_FLOAT64, layers=layers, input_shape=(12, 12, 2))
    ours, keras, following = _model(network, implementation), _keras(network), Following()
    for step in range(30):
        images, labels = _batch(network, step)
        ours.step(images, labels)
        keras.step(images, labels)
        following.compare(ours.parameters, keras.parameters)
    assert following.departed is None, following.departed


WRONG = """
    import numpy as np
    from convbench import conv2d, conv2d_input_gradient, conv2d_kernel_gradient

    def axes(x):
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def forward(x, kernel, bias=None, padding="valid"):
        y = conv2d(axes(x), np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), padding=padding)
        if bias is not None:
            y = y + bias
        return y.transpose(0, 3, 1, 2)

    def input_gradient(output_gradient, kernel, input_shape, padding="valid"):
        n, c, h, w = input_shape
        given = axes(output_gradient), np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
        return conv2d_input_gradient(*given, (n, h, w, c), padding=padding).transpose(0, 3, 1, 2)

    calls = 0

    def kernel_gradient(x, output_gradient, kernel_size, padding="valid"):
        global calls
        calls += 1
        if calls > FROM:
            output_gradient = output_gradient[:, :, ::-1, ::-1]
        given = axes(x), axes(output_gradient)
        return conv2d_kernel_gradient(*given, kernel_size, padding=padding).transpose(3, 2, 0, 1)
"""


@pytest.mark.parametrize(("calls", "step"), [(0, 1), (8, 5)])
def test_a_wrong_kernel_gradient_departs_at_its_step(tmp_path, calls, step):
    """The network has two convolutions, so the eighth call is the last of the fourth step."""
    file = tmp_path / "own.py"
    file.write_text(textwrap.dedent(WRONG).replace("FROM", str(calls)))
    following, _ = _followed(SMALL, _trainer(SMALL, str(file)), 8)
    assert following.departed.step == step
    assert following.departed.parameter.startswith("conv2d")
    assert following.departed.over_bound > 10


def test_a_parameter_that_is_no_number_departs():
    following = Following()
    following.compare({"a": np.array([1, np.nan, 1])}, {"a": np.ones(3)})
    assert following.departed is not None
    assert following.departed.error == np.inf


def test_the_bound_grows_with_the_rounding_of_keras_and_the_step():
    before, exact = {"a": np.zeros(3)}, {"a": np.full(3, 1e-4)}
    off = [{"a": np.full(3, 1e-4 + error)} for error in (1e-5, 8e-5, 9e-5)]
    following = Following()
    following.compare_step(before, off[1], exact, off[0])
    assert following.departed is None
    following.compare_step(before, off[1], exact, exact)  # Keras rounded by 1e-5 a step before
    assert following.departed is None
    following.compare_step(before, off[2], exact, exact)
    assert following.departed.step == 3
    assert following.departed.bound == pytest.approx(FACTOR * 1e-5 + SIDE * 1e-4, rel=1e-3)


# Training


@pytest.fixture(scope="module")
def digits():
    return data.load("synthetic", (14, 14, 1), 10, images=640)


LEARNING = Network(
    "learning",
    (14, 14, 1),
    (Conv2D(4, (3, 3)), ReLU(), MaxPooling2D(), Flatten(), Dense(10)),
    Adam(0.005),
    batch_size=30,
)


def test_a_network_learns(digits):
    trainer = Trainer(_model(LEARNING, "auto"), digits, seed=0)
    before = trainer.accuracy()
    for _ in range(8 * trainer.steps_an_epoch):
        trainer.step()
    assert trainer.steps_an_epoch == 22  # the last batch of an epoch has 10 images
    assert (trainer.epoch, trainer.batch, len(trainer.losses)) == (8, 0, 176)
    assert before < 0.3
    assert trainer.accuracy() > before + 0.3


def test_every_phase_but_the_input_gradient_takes_time(digits):
    trainer = Trainer(_model(LEARNING, "loop"), digits, seed=0)
    trainer.step()
    seconds = trainer.model.phases.seconds
    assert all(seconds[phase] > 0 for phase in Phase if phase is not Phase.INPUT_GRADIENT)
    assert seconds[Phase.INPUT_GRADIENT] == 0  # the first layer needs no gradient of its input


def test_a_restored_training_ends_like_one_that_was_not_interrupted(digits):
    whole = Trainer(_model(LEARNING), digits, seed=3)
    for _ in range(40):
        whole.step()
    first = Trainer(_model(LEARNING), digits, seed=3)
    for _ in range(25):
        first.step()
    second = Trainer(_model(LEARNING, seed=9), digits, seed=0)
    second.restore(first.state)
    for _ in range(15):
        second.step()
    assert second.losses == whole.losses
    for name, array in whole.model.parameters.items():
        assert np.array_equal(second.model.parameters[name], array)


def test_a_state_of_another_optimiser_is_refused(digits):
    momentum = dataclasses.replace(LEARNING, optimizer=SGD(0.1, 0.9))
    state = Trainer(_model(momentum), digits, seed=0).state
    with pytest.raises(TrainingError, match="is another optimiser's"):
        Trainer(_model(LEARNING), digits, seed=0).restore(state)


def test_an_implementation_that_cannot_train_names_the_layer(digits):
    with pytest.raises(TrainingError, match="conv2d_1 forward") as caught:
        Trainer(_model(LEARNING, "direct"), digits, seed=0).step()
    assert "direct cannot train this network" in caught.value.message


def test_weights_of_another_network_are_refused():
    model = _model(SMALL)
    one = {"conv2d_1/kernel": np.ones((2, 2, 1, 4))}
    with pytest.raises(TrainingError) as caught:
        model.set_weights({**model.parameters, **one})
    expected = "conv2d_1/kernel: found (2, 2, 1, 4), expected (3, 3, 1, 4)"
    assert caught.value.message == f"these are not weights of small: {expected}"
    with pytest.raises(TrainingError, match="conv2d_2/bias: found none"):
        model.set_weights(one)


# Networks


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ((Flatten(), Conv2D(2, (3, 3)), Dense(2)), "layers.1: found conv2d behind flatten"),
        ((Dense(2),), "layers.0: found dense on an image, expected flatten before it"),
        ((Flatten(),), "layers.0: the last layer is flatten, expected a dense layer"),
        ((Conv2D(2, (9, 9)), Flatten(), Dense(2)), "layers.0.conv2d.kernel_size: a kernel of 9x9"),
        ((MaxPooling2D((9, 9)), Flatten(), Dense(2)), "layers.0.max_pooling2d.pool_size: a window"),
        ((Conv2D(3, (3, 3), groups=2), Flatten(), Dense(2)), "layers.0.conv2d.groups: 2 must"),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(layers, told):
    with pytest.raises(NetworkError) as caught:
        Network("n", (8, 8, 1), layers)
    assert told in caught.value.message


def test_parameters_have_keras_names_and_shapes():
    assert SMALL.parameters == {
        "conv2d_1/kernel": (3, 3, 1, 4),
        "conv2d_1/bias": (4,),
        "conv2d_2/kernel": (3, 2, 4, 6),
        "conv2d_2/bias": (6,),
        "dense_1/kernel": (4 * 3 * 6, 5),
        "dense_1/bias": (5,),
    }
    assert SMALL.parameter_count == 36 + 4 + 144 + 6 + 360 + 5


def test_initial_weights_are_those_of_keras_in_distribution():
    from convbench.training.keras_model import sequential

    network = Network("n", (9, 9, 8), (Conv2D(64, (3, 3), groups=2), Flatten(), Dense(50)))
    ours = initial_weights(network, 0)
    keras = dict(zip(network.parameters, sequential(network).get_weights(), strict=True))
    for name, array in ours.items():
        assert array.shape == keras[name].shape
        assert array.dtype == keras[name].dtype
        assert np.abs(array).max() == pytest.approx(np.abs(keras[name]).max(), rel=0.01)
        assert array.std() == pytest.approx(keras[name].std(), rel=0.05)
