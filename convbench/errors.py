"""Define the one base exception: what went wrong, what to do about it, and the exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns; where several hold, the first of PRECEDENCE wins."""

    FINE = 0
    GATE_FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INCOMPARABLE = 4
    WRONG = 5
    INTERRUPTED = 130


PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.WRONG,
    ExitCode.INCOMPARABLE,
    ExitCode.GATE_FAILED,
    ExitCode.INCONCLUSIVE,
    ExitCode.FINE,
)


class ConvbenchError(Exception):
    """An error that a person reads: `message` says what and where, `hint` what to do.

    `message` may have several lines, one a problem.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SuiteError(ConvbenchError):
    """A suite file that cannot be read; every problem of the file is in the message."""


class LayerError(ConvbenchError):
    """A layer that no convolution can have (an empty output, groups that do not divide).

    `key` is the key of the layer that is wrong, and `problem` says what is wrong with it.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class NetworkError(ConvbenchError):
    """A network whose layers do not follow on each other. `keys` lead to what is wrong."""

    def __init__(self, keys: tuple[str | int, ...], text: str) -> None:
        super().__init__(f"{'.'.join(map(str, keys))}: {text}")
        self.keys = keys
        self.text = text


class TrainingError(ConvbenchError):
    """Data, weights or checkpoints that cannot be read, or do not fit the network."""


class OperandError(ConvbenchError, ValueError):
    """Arrays or settings given to `convbench.conv2d` and its like that make no convolution."""


class ResultError(ConvbenchError):
    """A result file that cannot be read, written or trusted."""


class ImplementationError(ConvbenchError):
    """An implementation that cannot be found or loaded."""
