"""Collect what the check finds in faulty and in right convolutions, and print the rates.

The faulty ones are in `tests/mutants`, written without knowledge of the catalogue of mistakes. The
right ones are in `tests/styles`. Layers are those of configs/geometry.yaml, or drawn by hypothesis.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from convbench.implementations.registry import REGISTRY
from convbench.machine.affinity import usable_cpus
from tests.cli import ROOT
from tests.mutants.causes import CAUSES
from tests.mutants.holdout_causes import HOLDOUT
from tests.styles.names import NAMES

THREADS, SEED = 2, 0
ANSWERS = {**CAUSES, **HOLDOUT}
PASSES = {
    "forward.py": "forward",
    "input_gradients.py": "input-gradient",
    "kernel_gradients.py": "kernel-gradient",
}


@dataclass(frozen=True)
class Judged:
    """Findings about one mutant: on how many layers it is wrong, and how its mistake is named.

    `named` holds the causes of the explanations that reproduce the results. Where none does, it
    holds the causes of all explanations.
    """

    name: str
    wrong: int
    named: frozenset[str]
    sentences: tuple[str, ...]

    @property
    def is_named_rightly(self) -> bool:
        return self.named in ANSWERS[self.name]


def judge(name: str, every: int = 1) -> Judged:
    """Judge a mutant on the layers of geometry.yaml that it supports, taking one in `every`."""
    from convbench.agreement.check.case import Case
    from convbench.agreement.check.checker import check
    from convbench.agreement.diagnosis.diagnosing import Diagnosing
    from convbench.agreement.diagnosis.search import likeliest
    from convbench.suites.file import read_suite

    implementation = REGISTRY.get(str(ROOT / "tests" / "mutants" / name))
    pass_ = _pass_of(implementation, name)
    diagnosing = Diagnosing()
    found = []
    for layer in read_suite("geometry").layers[::every]:
        case = Case(implementation, layer, pass_, THREADS, SEED)
        if case.is_supported and check(case).verdict == "wrong":
            found.append(diagnosing.explained(case))
    chosen = [explanation for explanation in likeliest(found) if explanation is not None]
    telling = [e for e in chosen if e.reproduces] or chosen
    causes = frozenset(cause for e in telling for cause in e.causes)
    return Judged(
        name,
        len(found),
        causes or frozenset({"unexplained"}),
        tuple(dict.fromkeys(e.sentence for e in chosen)),
    )


def _pass_of(implementation, name):
    """Return the one pass that a mutant has. The file of the holdout has mutants of every pass."""
    from convbench.problem.layer import Layer, Pass

    file = name.partition(":")[0]
    if file in PASSES:
        return Pass(PASSES[file])
    layer = Layer("any", (9, 8, 4), 4, (3, 2), batch_size=2)
    return next(
        pass_
        for pass_ in Pass
        if (reason := implementation.unsupported(layer, pass_)) is None
        or "pass" not in reason.lacks
    )


@dataclass(frozen=True)
class Agreed:
    """Findings about one right convolution: number of its cells, and those called wrong."""

    name: str
    cells: int
    called_wrong: tuple[str, ...]


def agree(name: str, drawn: int = 0) -> Agreed:
    """Check a right convolution on geometry.yaml, or on `drawn` drawn layers."""
    from convbench.agreement.check.case import Case
    from convbench.agreement.check.checker import check
    from convbench.problem.layer import Pass

    implementation = REGISTRY.get(str(ROOT / "tests" / "styles" / name))
    cells, called_wrong = 0, []
    for layer in _layers(name, drawn):
        for pass_ in Pass:
            if implementation.unsupported(layer, pass_) is not None:
                continue
            cells += 1
            found = check(Case(implementation, layer, pass_, THREADS, SEED))
            if found.verdict == "wrong":
                called_wrong.append(f"{pass_} {layer.geometry()}: {found.diagnosis}")
    return Agreed(name, cells, tuple(called_wrong))


def _layers(name: str, drawn: int):
    from convbench.suites.file import read_suite

    if not drawn:
        return read_suite("geometry").layers
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.layers import layers

    found = []

    @seed(sum(name.encode()))
    @settings(
        max_examples=drawn,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(layer=layers())
    def collect(layer):
        found.append(layer)

    collect()
    return found


def everyone(function, names, *arguments):
    """Yield the function's result for each name, computed in one process for each CPU."""
    workers = len(usable_cpus())
    with ProcessPoolExecutor(workers, get_context("spawn"), _start) as pool:
        futures = [pool.submit(function, name, *arguments) for name in names]
        for future in futures:
            yield future.result()


def _start() -> None:
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)


def print_mutants(what: str, names) -> bool:
    """Print every mutant that is not named rightly, and both rates; return whether they hold."""
    found = list(everyone(judge, names))
    missed = [m.name for m in found if not m.wrong]
    misnamed = [m for m in found if m.wrong and not m.is_named_rightly]
    for name in missed:
        print(f"not found: {name}")
    for mutant in misnamed:
        answers = " or ".join(" + ".join(sorted(answer)) for answer in ANSWERS[mutant.name])
        print(f"misnamed: {mutant.name}: {answers}, called {' + '.join(sorted(mutant.named))}")
        for sentence in mutant.sentences:
            print(f"    {sentence}")
    named = len(found) - len(missed) - len(misnamed)
    print(
        f"{what}: {len(found) - len(missed)} of {len(found)} found wrong, "
        f"{named} of {len(found)} named rightly ({named / len(found):.1%})"
    )
    return not missed and named >= 0.9 * len(found)


def print_styles(drawn: int) -> bool:
    """Print every cell of a right convolution that is called wrong, and how many there are.

    Return whether there are none.
    """
    ok = True
    for what, count in (("geometry.yaml", 0), (f"{drawn} drawn layers each", drawn)):
        found = list(everyone(agree, NAMES, count))
        for style in found:
            for cell in style.called_wrong:
                print(f"called wrong: {style.name} {cell}")
        wrong = sum(len(style.called_wrong) for style in found)
        ok = ok and not wrong
        print(
            f"right: {len(found)} convolutions, {sum(s.cells for s in found)} cells on {what}, "
            f"{wrong} called wrong"
        )
    return ok
