"""Count what the CPU and the kernel count during a call; what cannot be counted is told."""

from __future__ import annotations

from collections.abc import Callable

from convbench.machine.events import EVENTS, counters
from convbench.profile.findings import Counted

SECONDS = 0.1
"""Seconds for which the counted calls are made; one call at least."""


def counted(run: Callable[[], object], call_s: float) -> Counted:
    """Counts a call, and by event what the system said where it has none."""
    calls = max(1, round(SECONDS / max(call_s, 1e-7)))
    counts: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in EVENTS:
        try:
            with counters(name) as found:
                found.start()
                for _ in range(calls):
                    run()
                found.stop()
                counts[name] = found.total() / calls
        except OSError as error:
            missing[name] = error.strerror or str(error)
    return Counted(counts, missing)
