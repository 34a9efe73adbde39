"""Test that the harness is fair: code of known cost is measured as what it costs.

The whole command runs, in real processes. tests/users/synthetic.py says what a pause, a garbage
collection or sleeping threads do to this code.
"""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.cli import ROOT, cells, started
from tests.users.synthetic import ASLEEP_S, COST_S

pytestmark = pytest.mark.alone  # beside other tests even a plain loop is off

SUITE = ROOT / "tests" / "suites" / "fairness.yaml"
VARIANTS = ("steady", "sleepy", "heap", "pool")
WITHIN = 0.15
"""Largest relative error of a figure. A harness that wakes nobody is off by 100 %."""


@pytest.fixture(scope="module")
def times_s(tmp_path_factory):
    """Seconds of a call that `convbench run` reports, for each variant."""
    output = tmp_path_factory.mktemp("fairness") / "result.json"
    done = started("run", SUITE, "--effort", "quick", "-o", output)
    assert done.returncode in (0, 3), done.stderr  # 3 means that the machine was not calm
    found = cells(json.loads(output.read_text()))
    assert all(cell["agreement"]["exact"] for cell in found.values())
    return {name: cell["time"]["time_s"] for (_, _, name), cell in found.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_figure_is_right_whatever_the_heap_and_the_threads(times_s, name):
    assert times_s[name] == pytest.approx(COST_S, rel=WITHIN)


@pytest.mark.parametrize("name", VARIANTS[1:])
def test_a_speedup_between_code_of_the_same_cost_is_1(times_s, name):
    assert times_s["steady"] / times_s[name] == pytest.approx(1, rel=WITHIN)


# The instrument itself: unless it can be disturbed, the tests above pass on any harness

PLAIN_LOOP = textwrap.dedent(
    """
    import gc, json, statistics, sys, time
    import numpy as np
    from tests.users import synthetic

    def call_s():
        start = time.perf_counter()
        code.forward(x, kernel)
        return time.perf_counter() - start

    def median_s(calls):
        return statistics.median(call_s() for _ in range(calls))

    def woken_s():
        median_s(300)
        return median_s(20)

    x, kernel = np.ones((2, 2, 8, 8), np.float32), np.ones((4, 2, 3, 3), np.float32)
    code = getattr(synthetic, sys.argv[1].title())()
    found = {"awake": woken_s()}
    time.sleep(0.01)
    found["after a pause"] = median_s(20)
    woken_s()
    gc.collect()
    found["after a collection"] = median_s(20)
    found["awake again"] = woken_s()
    json.dump(found, sys.stdout)
    """
)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_plain_loop_finds_the_cost_unless_there_was_a_pause(name):
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_LOOP, name], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    asleep_s = COST_S if name == "steady" else ASLEEP_S
    expected = {"awake": COST_S, "after a pause": asleep_s, "awake again": COST_S}
    found = json.loads(done.stdout)
    after_collection_s = found.pop("after a collection")
    assert found == pytest.approx(expected, rel=0.05)
    if name in ("steady", "heap"):
        assert after_collection_s == pytest.approx(asleep_s, rel=0.05)
