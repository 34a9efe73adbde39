"""Give every test a tuning cache of its session instead of the user's, and no memory of runs."""

import gc
import os
import sys

import pytest
import threadpoolctl
from hypothesis import settings

from convbench.machine import tuning
from convbench.machine.tuning import CACHE_VARIABLE
from convbench.results.run_memory_file import MEMORY_VARIABLE

settings.register_profile("quick", max_examples=15, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")
"""Hypothesis draws few examples, so that tests are quick, and many in continuous integration."""

# Tests start hundreds of processes. If they kept no bytecode, each would compile convbench anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


LONG = (
    "cli_run",
    "train",
    "check",
    "readme",
    "conformance",
    "training",
    "gate_cli",
    "memory",
    "keras",
)
"""Files that take long, in the order in which they start, so that both processes of tests end
together. Without it, one waited for `test_train.py` half a minute (measured)."""


def pytest_collection_modifyitems(items):
    first = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


@pytest.fixture(autouse=True, scope="session")
def tuning_cache(tmp_path_factory):
    """Path of the file that keeps trials. Subprocesses see it too, even those of wider fixtures."""
    path = tmp_path_factory.mktemp("tuning") / "tuning.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(path))
        yield path


@pytest.fixture(autouse=True, scope="session")
def _one_blas_thread():
    """Let each of the two processes of tests use one CPU: threads of BLAS that wait take time.

    What a test starts, and what it prepares for some number of threads, sets its own number.
    """
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_run_memory():
    """Keep tests from remembering runs: what a later run prints would depend on earlier ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MEMORY_VARIABLE, "")
        yield


@pytest.fixture
def no_trials():
    """Let the cost model decide what `auto` takes, because trials take longer than most tests."""
    tuning.allow_trials(False)
    yield
    tuning.allow_trials(True)


@pytest.fixture(autouse=True, scope="module")
def _old_heap_is_not_searched():
    """Keep garbage collections short: else each walks over all of TensorFlow, for 0.3 s."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _floatx_as_it_was():
    """Reset Keras's default dtype, which a test that trains in float64 changes for later tests.

    Its policy is reset too: the first layer that is made takes the default for all later layers.
    """
    yield
    if "keras" in sys.modules:
        config = sys.modules["keras"].config
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
