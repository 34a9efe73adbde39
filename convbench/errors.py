"""Define the one base exception: what went wrong, what to do about it, and the exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of the process. Where several apply, the first one in PRECEDENCE wins."""

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
"""Exit codes in order of precedence: if several apply, the process returns the first of them."""


class ConvbenchError(Exception):
    """An error that is shown to the user.

    `message` says what is wrong and where, in one line for each problem. `hint` says what to do.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SuiteError(ConvbenchError):
    """A suite file that cannot be read. The message lists every problem of the file."""


class LayerError(ConvbenchError):
    """A layer that cannot exist, for example because its output would be empty.

    `key` is the key of the layer that is wrong, and `problem` says what is wrong with it.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class NetworkError(ConvbenchError):
    """A network whose layers do not fit together. `keys` is the path to the wrong entry."""

    def __init__(self, keys: tuple[str | int, ...], text: str) -> None:
        super().__init__(f"{'.'.join(map(str, keys))}: {text}")
        self.keys = keys
        self.text = text


class TrainingError(ConvbenchError):
    """Data, weights or a checkpoint that cannot be read or does not fit the network."""


class OperandError(ConvbenchError, ValueError):
    """Arrays or settings that `convbench.conv2d`, a gradient or `plan` cannot compute with."""


class ResultError(ConvbenchError):
    """A result file that cannot be read, written or trusted."""


class ImplementationError(ConvbenchError):
    """An implementation that cannot be found or loaded."""
