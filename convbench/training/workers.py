"""Start and ask the workers of a training."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.errors import TrainingError
from convbench.measure.messages import Answer, CellFailedError, Request, UnansweredError
from convbench.measure.process import Worker
from convbench.schedule.workers import Workers
from convbench.training.messages import GetState
from convbench.training.trainer import State


@dataclass(frozen=True)
class TrainingWorkers(Workers):
    """Workers whose requests may show that a training cannot be made at all."""

    def ask(self, worker: Worker, request: Request[Answer]) -> Answer:
        """Raises TrainingError for what is the user's to mend, UnansweredError for a crash."""
        try:
            return super().ask(worker, request)
        except CellFailedError as failed:
            if failed.failure.is_usage:
                raise TrainingError(failed.failure.reason, failed.failure.hint) from None
            raise

    def state_of(self, worker: Worker) -> State | None:
        """Where an interrupted training stands, after the steps that it was asked for last.

        None if it is gone: whatever ended it tells why.
        """
        try:
            worker.settle(self.timeout_s)
            return worker.ask(GetState(), self.timeout_s)
        except UnansweredError:
            return None
