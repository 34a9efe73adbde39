"""What every test has: a tuning cache of its session, not the user's, and no memory of runs."""

import gc
import os
import sys

import pytest
from hypothesis import settings

from convbench.machine.tuning import CACHE_VARIABLE
from convbench.results.run_memory_file import MEMORY_VARIABLE

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")
"""Hypothesis draws few layers, so that tests are quick, and many in continuous integration."""


@pytest.fixture(autouse=True, scope="session")
def tuning_cache(tmp_path_factory):
    """Where trials are kept. Subprocesses see it too, those of wider fixtures included."""
    path = tmp_path_factory.mktemp("tuning") / "tuning.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(path))
        yield path


@pytest.fixture(autouse=True, scope="session")
def _no_run_memory():
    """Runs of a test are not remembered: what a later one prints would depend on earlier ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MEMORY_VARIABLE, "")
        yield


@pytest.fixture(autouse=True, scope="module")
def _old_heap_is_not_searched():
    """A collection walks over all of TensorFlow otherwise, 0.3 s each time; visits make many."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _floatx_as_it_was():
    """Keras's default dtype is the process's: a test that trains in float64 leaves it to others.

    Twice so: the first layer that is made makes it the policy of all that come.
    """
    yield
    if "keras" in sys.modules:
        config = sys.modules["keras"].config
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
