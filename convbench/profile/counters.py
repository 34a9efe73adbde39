"""Count events of the CPU and the kernel during a call, and say which cannot be counted."""

from __future__ import annotations

from collections.abc import Callable

from convbench.machine.events import EVENTS, counters
from convbench.profile.findings import Counted

SECONDS = 0.1
"""Seconds for which the counted calls are repeated. At least one call is made."""


def counted(run: Callable[[], object], call_s: float) -> Counted:
    """Count the events of a call of about `call_s` seconds, or say why an event was not counted."""
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
