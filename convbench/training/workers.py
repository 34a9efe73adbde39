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
    """Workers of a training. Their answers may show that the training is impossible."""

    def ask(self, worker: Worker, request: Request[Answer]) -> Answer:
        """Return a worker's answer to a request.

        Raises TrainingError if the user can mend what is wrong, and UnansweredError otherwise.
        """
        try:
            return super().ask(worker, request)
        except CellFailedError as failed:
            if failed.failure.is_usage:
                raise TrainingError(failed.failure.reason, failed.failure.hint) from None
            raise

    def state_of(self, worker: Worker) -> State | None:
        """Return where an interrupted training stands, after the steps that it was last asked for.

        Returns None if the worker is lost. The error that ended it tells why.
        """
        try:
            worker.settle(self.timeout_s)
            return worker.ask(GetState(), self.timeout_s)
        except UnansweredError:
            return None
