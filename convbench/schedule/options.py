"""Hold how a session is run, as far as that does not change what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """`environment` is the workers', whole. `budget_s` is for everything, `timeout_s` for one
    answer of a worker. `time_wrong` times wrong cells too; they are never ranked. `rounds` is how
    many there shall be in the end, None as many as the effort has.

    `comparing` is for telling versions of one code apart: the same time in more and shorter
    visits, all arms on the same CPUs, and the suite's first implementation as the twin everywhere.
    `confirm` adds a plain loop of each cell in a process of its own.

    Not `metering`: cells are only checked.
    """

    environment: Mapping[str, str]
    budget_s: float | None = None
    timeout_s: float = 300.0
    time_wrong: bool = False
    rounds: int | None = None
    comparing: bool = False
    confirm: bool = False
    metering: bool = True


def worker_environment(
    environ: Mapping[str, str], changes: Mapping[str, str | None]
) -> dict[str, str]:
    """The caller's variables, a few settings of ours, and the suite's, which win (None unsets)."""
    ours = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }
    merged = {**environ, **ours, **changes}
    return {name: value for name, value in merged.items() if value is not None}
