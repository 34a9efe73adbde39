"""What every test has: a tuning cache of the session's own, never the user's."""

import pytest

from convbench.tuning import CACHE_VARIABLE


@pytest.fixture(autouse=True, scope="session")
def tuning_cache(tmp_path_factory):
    """Where trials are kept. Subprocesses see it too, those of wider fixtures included."""
    path = tmp_path_factory.mktemp("tuning") / "tuning.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(path))
        yield path
