"""Test weights and checkpoints on disk: saved ones read back, and foreign files are refused."""

import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest

from convbench.errors import TrainingError
from convbench.implementations.registry import REGISTRY
from convbench.training import data, weights_file
from convbench.training.model import Model, initial_weights
from convbench.training.network import SGD, Conv2D, Dense, Flatten, MaxPooling2D, Network, ReLU
from convbench.training.trainer import Trainer

NETWORK = Network(
    "saved",
    (14, 14, 1),
    (Conv2D(4, (3, 3)), ReLU(), MaxPooling2D(), Flatten(), Dense(10)),
    batch_size=30,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("synthetic", (14, 14, 1), 10, images=200)


def _trainer(digits, network=NETWORK, seed=0):
    model = Model(network, REGISTRY.get("im2col"), 1, initial_weights(network, seed))
    return Trainer(model, digits, seed=5)


@pytest.fixture
def saved(digits, tmp_path):
    trainer = _trainer(digits)
    for _ in range(9):
        trainer.step()
    weights_file.save(tmp_path / "w.npz", NETWORK, trainer.state)
    return tmp_path / "w.npz"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [NETWORK.optimizer, SGD(), SGD(0.1, 0.9)], ids=str)
def test_a_training_goes_on_from_the_file_to_the_same_end(digits, tmp_path, dtype, optimizer):
    network = dataclasses.replace(NETWORK, dtype=dtype, optimizer=optimizer)
    whole, first = _trainer(digits, network), _trainer(digits, network)
    for _ in range(20):
        whole.step()
    for _ in range(9):
        first.step()
    file = tmp_path / "new" / "w.npz"
    weights_file.save(file, network, first.state)
    second = _trainer(digits, network, seed=8)
    second.restore(weights_file.load(file, network))
    for _ in range(11):
        second.step()
    assert second.losses == whole.losses
    for name, array in whole.model.parameters.items():
        assert np.array_equal(second.model.parameters[name], array)


def test_a_file_has_the_arrays_that_are_documented(saved):
    with np.load(saved, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays["convbench"]))
    assert about["schema"] == "convbench-weights/1"
    assert (about["seed"], about["shuffle"]) == (5, 0)
    assert (about["epoch"], about["batch"]) == (1, 2)
    assert about["network"]["layers"][0]["conv2d"]["filters"] == 4
    assert arrays["weights/conv2d_1/kernel"].shape == (3, 3, 1, 4)
    assert arrays["weights/conv2d_1/kernel"].dtype == np.float32
    assert arrays["optimizer/velocity/dense_1/bias"].shape == (10,)
    assert arrays["losses"].shape == (9,)


def test_a_file_tells_what_its_batches_are_drawn_from(saved, digits):
    source = weights_file.load(saved, NETWORK).source
    assert (source.images, source.batch_size) == (200, 30)
    others = data.load("synthetic", (14, 14, 1), 10, seed=1, images=200)
    assert source.checksum == digits.checksum != others.checksum
    relabelled = dataclasses.replace(digits, labels=digits.labels[::-1].copy())
    assert relabelled.checksum != digits.checksum


def test_a_file_of_an_earlier_version_tells_no_source(saved):
    assert weights_file.load(_rewritten(saved, convbench=_about()), NETWORK).source is None


def test_batch_size_and_optimiser_settings_may_differ(saved):
    other = dataclasses.replace(NETWORK, batch_size=7, optimizer=SGD(), name="other")
    assert weights_file.load(saved, other).weights.keys() == NETWORK.parameters.keys()


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(saved, part):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(TrainingError, match="found no whole"):
        weights_file.load(saved, NETWORK)


def test_a_flipped_byte_is_refused(saved):
    whole = bytearray(saved.read_bytes())
    place = whole.index(b"weights/dense_1/kernel") + 400
    whole[place] ^= 0x40
    saved.write_bytes(whole)
    with pytest.raises(TrainingError, match="found no whole"):
        weights_file.load(saved, NETWORK)


class _Runs:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path):
    trap = np.array([_Runs(str(tmp_path / "ran"))], dtype=object)
    np.savez(tmp_path / "w.npz", convbench=trap, allow_pickle=True)
    (tmp_path / "p.npz").write_bytes(pickle.dumps(trap[0]))
    for name in ("w.npz", "p.npz"):
        with pytest.raises(TrainingError, match="found no whole"):
            weights_file.load(tmp_path / name, NETWORK)
    assert not (tmp_path / "ran").exists()


def _rewritten(saved, **changes):
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    for name, value in changes.items():
        name = name.replace("__", "/")
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    np.savez(saved, **arrays)
    return saved


SOURCE = {"images": 200, "checksum": 7, "batch_size": 30}


def _about(**changes):
    network = weights_file.described(NETWORK)
    counts = dict.fromkeys(("seed", "shuffle", "epoch", "batch"), 0)
    about = {"schema": weights_file.SCHEMA, "network": network, **counts}
    return np.array(json.dumps({**about, **changes}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"convbench": None}, "found another kind of file"),
        ({"convbench": np.array("no JSON")}, "found another kind of file"),
        ({"convbench": np.arange(3)}, "found another kind of file"),
        ({"convbench": _about(network={})}, "found another kind of file"),
        ({"convbench": _about(network={"layers": 3})}, "found another kind of file"),
        ({"convbench": _about(network=[])}, "found another kind of file"),
        ({"convbench": _about(epoch=-1)}, "found another kind of file"),
        ({"convbench": _about(epoch=True)}, "found another kind of file"),
        ({"convbench": _about(source=3)}, "found another kind of file"),
        ({"convbench": _about(source={"images": 3})}, "found another kind of file"),
        ({"convbench": _about(source={**SOURCE, "images": -1})}, "found another kind of file"),
        ({"convbench": _about(schema="convbench-weights/2")}, "found the schema"),
        ({"weights__dense_1__bias": None}, "weights/dense_1/bias: found nothing, expected float32"),
        ({"weights__dense_1__bias": np.ones(3, "f4")}, r"found float32 \(3,\)"),
        ({"weights__dense_1__bias": np.ones(10)}, r"found float64 \(10,\), expected float32"),
        ({"weights__dense_1__bias": np.full(10, np.nan, "f4")}, "that are not finite"),
        ({"optimizer__velocity__dense_1__bias": None}, "some parameters are missing"),
        ({"optimizer__velocity__other": np.ones(3, "f4")}, "some parameters are missing"),
        ({"losses": None}, "losses: found nothing"),
    ],
)
def test_a_foreign_file_is_refused(saved, changes, told):
    with pytest.raises(TrainingError, match=told) as caught:
        weights_file.load(_rewritten(saved, **changes), NETWORK)
    assert str(saved) in caught.value.message


def test_weights_of_another_network_are_refused(saved):
    other = dataclasses.replace(NETWORK, layers=(Flatten(), Dense(10)))
    with pytest.raises(TrainingError, match=r"weights of \[14, 14, 1\] float32: conv2d\(filters 4"):
        weights_file.load(saved, other)


def test_an_archive_that_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "MAX_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("convbench.npy", b"\0" * 2_000_000)
    assert (tmp_path / "w.npz").stat().st_size < 10_000
    with pytest.raises(TrainingError):
        weights_file.load(tmp_path / "w.npz", NETWORK)


def test_missing_files_and_folders_are_reported(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(TrainingError, match="cannot be read"):
            weights_file.load(path, NETWORK)
    (tmp_path / "file").write_text("")
    state = _trainer(data.load("synthetic", (14, 14, 1), 10, images=30)).state
    with pytest.raises(TrainingError, match="cannot be written"):
        weights_file.save(tmp_path / "file" / "w.npz", NETWORK, state)


def test_an_interrupted_save_leaves_the_old_file(saved, digits, monkeypatch):
    before = saved.read_bytes()

    def interrupted(*args, **kwargs):
        args[0].write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights_file.save(saved, NETWORK, _trainer(digits).state)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["w.npz"]


# Keras


def test_weights_go_to_keras_and_back_bit_for_bit(saved, tmp_path):
    from convbench.training import keras_model

    weights = weights_file.load(saved, NETWORK).weights
    keras_model.save(NETWORK, weights, tmp_path / "model.keras")
    import keras

    model = keras.models.load_model(tmp_path / "model.keras")
    back = keras_model.weights_of(model, NETWORK)
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert back[name].dtype == np.float32
        assert back[name].tobytes() == array.tobytes()
    images = np.random.default_rng(0).random((5, 14, 14, 1), np.float32)
    ours = Model(NETWORK, REGISTRY.get("im2col"), 1, weights)
    assert np.allclose(ours.logits(images), model.predict_on_batch(images), atol=1e-5)
    other = dataclasses.replace(NETWORK, layers=(Flatten(), Dense(10)))
    with pytest.raises(TrainingError, match="not of the shape of saved"):
        keras_model.weights_of(model, other)
