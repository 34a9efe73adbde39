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
    """The settings that all workers of a session share, and the ways to start and ask workers.

    `timeout_s` is the number of seconds that one answer may take. Use `dataclasses.replace` for
    workers that differ. Every worker gets its runtime, the seed and the registry in a `Start`, so
    that it knows the implementations that requests name.
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
        """Return the workers of a session that is run with these options."""
        return cls(
            options.environment,
            session.threads,
            session.seed,
            session.registry,
            tune=session.tune,
            timeout_s=options.timeout_s,
        )

    def start(self, runtime: Runtime, variables: Mapping[str, str] | None = None) -> Worker:
        """Start a worker, which begins to import its runtime.

        `variables` replace those that the environment has for this runtime.
        """
        start = Start(runtime, self.threads, self.seed, self.registry, self.cpus, self.tune)
        return Worker(start, variables or self.environment.of(runtime, self.threads))

    def start_all(self, runtimes: Mapping[Key, Runtime]) -> dict[Key, Worker]:
        """Start workers that import side by side, and stop each until it gets the token.

        A worker that is lost meanwhile raises its reason when it is asked.
        """
        workers = {key: self.start(runtime) for key, runtime in runtimes.items()}
        for worker in workers.values():
            with contextlib.suppress(WorkerLostError):
                worker.wait_ready()
                worker.stop()
        return workers

    @contextlib.contextmanager
    def one(self, runtime: Runtime) -> Iterator[Worker]:
        """Start a worker, wait until it is ready, and kill it at the end of the `with` block."""
        worker = self.start(runtime)
        try:
            worker.wait_ready()
            yield worker
        finally:
            worker.kill()

    def ask(self, worker: Worker, request: Request[Answer]) -> Answer:
        """Return a worker's answer to a request, once it is ready. Raises UnansweredError."""
        worker.wait_ready()
        return worker.ask(request, self.timeout_s)

    def ask_once(self, runtime: Runtime, request: Request[Answer]) -> Answer:
        """Return the answer to a request from a fresh process. Raises UnansweredError."""
        with self.one(runtime) as worker:
            return self.ask(worker, request)
