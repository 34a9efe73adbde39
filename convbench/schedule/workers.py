"""Start the workers of a session, all of them alike, and ask them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from convbench.implementations.registry import Registry
from convbench.measure.environment import Environment
from convbench.measure.messages import Answer, Request, Start
from convbench.measure.process import Worker, WorkerLostError
from convbench.runtimes.contract import Runtime
from convbench.schedule.options import Options
from convbench.schedule.session import BaseSession, Key


@dataclass(frozen=True)
class Workers:
    """What the workers of a session have in common; `timeout_s` is for one answer of any.

    `replace` makes those that differ in something. Every worker gets its runtime, the seed and the
    registry in a `Start`, so that it knows the implementations that requests name.
    """

    environment: Environment
    threads: int
    seed: int
    registry: Registry
    cpus: tuple[int, ...] = ()
    tune: bool = True
    timeout_s: float = Options.timeout_s

    @classmethod
    def of(cls, session: BaseSession[Key], options: Options) -> Self:
        return cls(
            options.environment,
            session.threads,
            session.seed,
            session.registry,
            tune=session.tune,
            timeout_s=options.timeout_s,
        )

    def start(self, runtime: Runtime, variables: Mapping[str, str] | None = None) -> Worker:
        """A worker that begins to import its runtime, with its own `variables` if there are any."""
        start = Start(runtime, self.threads, self.seed, self.registry, self.cpus, self.tune)
        return Worker(start, variables or self.environment.of(runtime, self.threads))

    def start_all(self, runtimes: Mapping[Key, Runtime]) -> dict[Key, Worker]:
        """Workers that import side by side, and are then stopped until each gets the token.

        One that is lost at that shows when it is asked, with its reason.
        """
        workers = {key: self.start(runtime) for key, runtime in runtimes.items()}
        for worker in workers.values():
            with contextlib.suppress(WorkerLostError):
                worker.wait_ready()
                worker.stop()
        return workers

    @contextlib.contextmanager
    def one(self, runtime: Runtime) -> Iterator[Worker]:
        """A worker that is ready, and is killed at the end of the `with`."""
        worker = self.start(runtime)
        try:
            worker.wait_ready()
            yield worker
        finally:
            worker.kill()

    def ask(self, worker: Worker, request: Request[Answer]) -> Answer:
        """The answer of a worker, once it is ready. Raises UnansweredError."""
        worker.wait_ready()
        return worker.ask(request, self.timeout_s)

    def ask_once(self, runtime: Runtime, request: Request[Answer]) -> Answer:
        """The answer of a process of its own. Raises UnansweredError."""
        with self.one(runtime) as worker:
            return self.ask(worker, request)
