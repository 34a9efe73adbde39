"""Keep the answers of a precision campaign in one file: one entry for each question."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from random import Random

from pydantic import TypeAdapter, ValidationError

from convbench import runtimes
from convbench.errors import ExitCode, ResultError
from convbench.machine import description as machine
from convbench.results.file import write_atomically

SCHEMA = "convbench-precision/1"


@dataclass(frozen=True)
class Pair:
    """Two functions A and B with the same operands, each in a file of benchmarks/pairs.

    `ratio` is the true time of A over that of B, or None if nobody knows it. A tool may take
    `ceiling_s` seconds for one answer.
    """

    name: str
    a: str
    b: str
    ratio: float | None
    repetitions: int
    ceiling_s: float


PAIRS = {
    pair.name: pair
    for pair in (
        Pair("numpy", "numpy_conv.py", "numpy_conv.py", 1.0, 100, 60.0),
        Pair("keras", "keras_conv.py", "keras_conv.py", 1.0, 20, 180.0),
        Pair("numpy-keras", "numpy_conv.py", "keras_conv.py", None, 20, 180.0),
    )
}
"""Pairs of the campaign, with the repetitions of issue 17. A process that imports TensorFlow takes
4 s to start, so a pair with Keras gets three times as long."""

SAME_WIDTH = 0.002
"""Fraction of the precision by which a half width may exceed it. A tool may stop by half the width
of the ratio or of its logarithm, which differ by 0.1 % at a precision of 5 %."""

PRECISIONS = (0.05, 0.03, 0.02)
"""Wanted half widths of a speedup's interval, as fractions of the speedup (issue 17)."""


@dataclass(frozen=True)
class Question:
    """One question to a tool: the speedup of a pair, to `precision`."""

    pair: str
    tool: str
    precision: float
    repetition: int


@dataclass(frozen=True)
class Finding:
    """A speedup, the time of A over that of B, with the interval that the tool claims for it.

    `said` tells how much the tool did, and what it remarked.
    """

    ratio: float
    low: float
    high: float
    said: str = ""

    @classmethod
    def of_logs(cls, log: float, half_width: float, said: str) -> Finding:
        """Return the finding for a logarithm and half of its interval."""
        bounds = (math.exp(log + half) for half in (0, -half_width, half_width))
        return cls(*bounds, said)

    @property
    def half_width(self) -> float:
        """Half the width of the logarithm's interval: 0.03 is 3 %."""
        return math.log(self.high / self.low) / 2

    def misses(self, ratio: float) -> bool:
        """Return whether the interval leaves out a ratio."""
        return not self.low <= ratio <= self.high


@dataclass(frozen=True)
class Answer:
    """A tool's finding, or None without one, and the wall time of all of the tool's processes.

    `started` is the local time (ISO 8601), by which phases of the host can be told apart.
    """

    question: Question
    seconds: float
    finding: Finding | None
    started: str

    def is_there(self, ceiling_s: float) -> bool:
        """Return whether the tool claims, in time, the precision that it was asked for."""
        return (
            self.finding is not None
            and self.finding.half_width <= self.question.precision * (1 + SAME_WIDTH)
            and self.seconds <= ceiling_s
        )


@dataclass(frozen=True)
class Setting:
    """The conditions that all answers of a file share. Answers of two settings are never mixed.

    `ceilings_s` are by pair, `versions` by package.
    """

    cpu: str
    cores: int
    logical_cpus: int
    isa: tuple[str, ...]
    threads: int
    ceilings_s: dict[str, float]
    versions: dict[str, str]

    @classmethod
    def here(cls, threads: int | None, ceiling_s: float | None = None) -> Setting:
        """Return the setting of this machine, with all of its CPUs and each pair's own ceiling
        unless another number or ceiling is given."""
        found = machine.fingerprint()
        software = machine.software(runtimes.versions())
        versions = {"python": software.python, "convbench": software.convbench, **software.versions}
        names = ("convbench", "python", "numpy", "tensorflow", "keras", "pyperf")
        return cls(
            found.cpu,
            found.cores,
            found.logical_cpus,
            found.isa,
            threads or found.logical_cpus,
            {pair.name: ceiling_s or pair.ceiling_s for pair in PAIRS.values()},
            {name: versions[name] for name in names if name in versions} | _pytest_benchmark(),
        )

    def differences(self, other: Setting) -> list[str]:
        """Say what is different in another setting."""
        return [
            f"{field.name}: {then} then, {now} now"
            for field in fields(self)
            if (then := getattr(self, field.name)) != (now := getattr(other, field.name))
        ]


def _pytest_benchmark() -> dict[str, str]:
    try:
        return {"pytest-benchmark": metadata.version("pytest-benchmark")}
    except metadata.PackageNotFoundError:
        return {}


@dataclass(frozen=True)
class Campaign:
    """A setting with all answers so far, in the order in which they were given."""

    setting: Setting
    answers: tuple[Answer, ...] = ()
    schema: str = SCHEMA

    def with_answer(self, answer: Answer) -> Campaign:
        return replace(self, answers=(*self.answers, answer))

    def open_questions(self, asked: Sequence[Question]) -> list[Question]:
        """Return the questions that have no answer yet, in their order."""
        answered = {answer.question for answer in self.answers}
        return [question for question in asked if question not in answered]

    def check_here(self) -> None:
        """Check that the machine and its software are the file's. Raises ResultError if not."""
        now = Setting.here(self.setting.threads)
        differences = self.setting.differences(replace(now, ceilings_s=self.setting.ceilings_s))
        if differences:
            error = ResultError(
                f"the campaign cannot go on here: {'; '.join(differences)}",
                hint="answers of two machines or versions do not belong together: start a new file",
            )
            error.exit_code = ExitCode.INCOMPARABLE
            raise error


def questions(
    pairs: Sequence[str],
    tools: Sequence[str],
    precisions: Sequence[float],
    repetitions: Mapping[str, int],
) -> Iterator[Question]:
    """Return every question, repetition by repetition, with the tools of each in random order.

    In this way a phase of the host meets all tools alike. The order is the same in every campaign.
    """
    for repetition in range(max(repetitions.values(), default=0)):
        for pair in pairs:
            if repetition >= repetitions[pair]:
                continue
            block = [Question(pair, tool, p, repetition) for p in precisions for tool in tools]
            Random(f"{pair} {repetition}").shuffle(block)
            yield from block


def timestamp() -> str:
    """Return the local time to the second, as ISO 8601 writes it."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def save(path: Path, campaign: Campaign) -> None:
    """Write the file atomically. Raises OSError."""
    write_atomically(path, _ADAPTER.dump_json(campaign, indent=1).decode() + "\n")


def load(path: Path) -> Campaign:
    """Return the campaign of a file. Raises ResultError for a file without a campaign."""
    try:
        campaign = _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ResultError(
            f"{path} is no campaign of precision.py: {where}: {first['msg']}"
        ) from None
    if campaign.schema != SCHEMA:
        raise ResultError(f"{path}: found schema {campaign.schema!r}, expected {SCHEMA!r}")
    return campaign


_ADAPTER = TypeAdapter(Campaign)
