"""Decide what runs when: calibrate, check and meter, then time in rounds. Print nothing.

`run` drives worker processes and yields events. Agreement comes before timing, because a wrong cell
is never ranked. The runtimes work side by side while cells are checked and metered. In the timing
phase exactly one arm runs at a time, and every other worker is stopped.
"""

from __future__ import annotations

from convbench.schedule.calibrating import describe
from convbench.schedule.campaign import Pairs, campaign_run
from convbench.schedule.looks import Judged, run_and_judge
from convbench.schedule.options import Options
from convbench.schedule.running import check, run
from convbench.schedule.session import Session

__all__ = [
    "Judged",
    "Options",
    "Pairs",
    "Session",
    "campaign_run",
    "check",
    "describe",
    "run",
    "run_and_judge",
]
