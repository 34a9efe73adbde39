"""Say which cells are wrong or crashed: the mistake, where it shows, what the code itself said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convbench.problem.unsupported import Unsupported
from convbench.report.views import scale
from convbench.report.views.table import Note
from convbench.results.model import (
    Cell,
    Example,
    Explanation,
    MistakeKind,
    Part,
    Raised,
    RemarkKind,
    ResultFile,
)

MAX_LAYERS = 4
"""Number of layers that a note names at most. The others are counted."""

MAX_SAID = 12
"""Number of lines that a note shows at most of what the user's code said."""


def agreement_notes(result: ResultFile, beside_rows: bool = False) -> Iterator[Note]:
    """Yield what a reader must know of wrong, crashed and refused cells, by implementation.

    With `beside_rows`, leave out what the rows of the cells say already.
    """
    for implementation in result.suite.implementations:
        of_it = [cell for cell in result.cells if cell.implementation == implementation]
        for pass_ in dict.fromkeys(cell.pass_ for cell in of_it):
            cells = [cell for cell in of_it if cell.pass_ == pass_]
            yield from _wrong(implementation, pass_, cells, beside_rows)
        yield from _crashed(implementation, of_it, beside_rows)
        yield from _remarks(implementation, of_it)
        if result.suite.is_own(implementation):
            if not beside_rows:
                yield from _left_out(of_it)
            yield from _said(implementation, of_it)


def _wrong(
    implementation: str, pass_: Part, cells: Sequence[Cell], beside_rows: bool
) -> Iterator[Note]:
    wrong = [cell for cell in cells if cell.status == "wrong"]
    groups: dict[tuple[MistakeKind, ...], list[Cell]] = {}
    for cell in wrong:
        groups.setdefault(_kinds(cell), []).append(cell)
    for group in sorted(groups.values(), key=len, reverse=True):
        explanation = _explanation(group)
        if beside_rows and explanation is None:
            continue
        sentence = explanation.sentence if explanation else group[0].reason or "wrong"
        if not explanation or not explanation.causes:
            sentence = f"{sentence}: {group[0].reason}" if explanation else sentence
        yield Note(
            f"{implementation} is wrong in {pass_}: {sentence}",
            "bad",
            points=tuple(_points(explanation, group, len(wrong))),
            verbatim=()
            if not explanation or not explanation.example
            else (explanation.example.picture),
        )


def _kinds(cell: Cell) -> tuple[MistakeKind, ...]:
    """Return the kinds of mistakes by which cells share a note; empty without an explanation."""
    explanation = cell.agreement.explanation if cell.agreement else None
    return explanation.kinds if explanation else ()


def _explanation(group: Sequence[Cell]) -> Explanation | None:
    """Return the first explanation that has an example, or else the first one."""
    found = [c.agreement.explanation for c in group if c.agreement and c.agreement.explanation]
    return next((e for e in found if e.example), found[0] if found else None)


def _points(explanation: Explanation | None, group: Sequence[Cell], wrong: int) -> Iterator[str]:
    layers = _layers(group)
    if explanation is None or not explanation.causes:
        yield f"on {len(group)} of {scale.counted(wrong, 'wrong layer')}: {layers}"
    elif explanation.reproduces:
        yield (
            f"computing with that mistake gives exactly the same results on {len(group)} of "
            f"{scale.counted(wrong, 'wrong layer')} ({layers})"
        )
    else:
        yield (
            f"inferred from how the results look and change on {len(group)} of "
            f"{scale.counted(wrong, 'wrong layer')} ({layers})"
        )
    if explanation is not None and explanation.example is not None:
        yield from _example(explanation.example)


def _example(example: Example) -> Iterator[str]:
    found = "a number that is not finite" if example.found is None else f"{example.found:g}"
    yield (
        f"smallest layer that fails: {example.layer.geometry()}; at {example.place} it gives "
        f"{found}, expected {example.expected:g}"
    )
    yield f"wrong places (#) in {example.of}:"


def _layers(cells: Sequence[Cell]) -> str:
    names = list(dict.fromkeys(cell.layer for cell in cells))
    more = len(names) - MAX_LAYERS
    shown = ", ".join(names[:MAX_LAYERS])
    return f"{shown} and {more} more" if more > 0 else shown


def _crashed(implementation: str, cells: Sequence[Cell], beside_rows: bool) -> Iterator[Note]:
    groups: dict[Raised | str, list[Cell]] = {}
    for cell in cells:
        if cell.status == "failed":
            groups.setdefault(cell.raised or cell.reason or "", []).append(cell)
    for group in groups.values():
        if beside_rows and not group[0].said:
            continue
        passes = scale.listed(list(dict.fromkeys(cell.pass_ for cell in group)))
        count = scale.counted(len({cell.layer for cell in group}), "layer")
        yield Note(
            f"{implementation} crashes in {passes}: {group[0].reason}",
            "bad",
            points=(f"on {count}: {_layers(group)}",),
            verbatim=group[0].said[-MAX_SAID:],
        )


def _remarks(implementation: str, cells: Sequence[Cell]) -> Iterator[Note]:
    """Yield one remark of each kind, with the first cell on which it was made."""
    seen: set[RemarkKind] = set()
    for cell in cells:
        if cell.agreement is None:
            continue
        for kind, remark in zip(cell.agreement.remark_kinds, cell.agreement.remarks, strict=True):
            if kind not in seen:
                seen.add(kind)
                yield Note(f"{implementation} ({cell.layer} {cell.pass_}): {remark}", "warning")


def _left_out(cells: Sequence[Cell]) -> Iterator[Note]:
    """Say once what each function of own code does not accept. Cells say it for every layer."""
    by_function: dict[str, list[Unsupported]] = {}
    by_reason: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.status != "unsupported":
            continue
        if cell.unsupported is not None and cell.unsupported.subject:
            by_function.setdefault(cell.unsupported.subject, []).append(cell.unsupported)
        else:
            by_reason.setdefault(cell.reason or "", []).append(cell)
    layers = scale.counted(len({cell.layer for cell in cells}), "layer")
    for function, group in by_function.items():
        lacks = dict.fromkeys(key for one in group for key in one.lacks)
        needs = "needs" if len(group) == 1 else "need"
        yield Note(
            f"Not checked: {len(group)} of {layers} {needs} "
            f"{scale.listed([_NEEDS.get(key, key) for key in lacks], 'or')}, which `{function}` "
            "does not accept.",
            "dim",
        )
    for reason, cells_of in by_reason.items():
        passes = scale.listed(list(dict.fromkeys(cell.pass_ for cell in cells_of)))
        count = scale.counted(len({cell.layer for cell in cells_of}), "layer")
        yield Note(f"Not checked: {passes} on {count}: {reason}.", "dim")


_NEEDS = {"dilation_rate": "dilation", "bias": "a bias"}
"""Words for what a layer needs, where they differ from the key of the YAML file."""


def _said(implementation: str, cells: Sequence[Cell]) -> Iterator[Note]:
    said = [line for cell in cells if cell.status != "failed" for line in cell.said]
    lines = tuple(dict.fromkeys(said))
    if lines:
        shown = lines[:MAX_SAID]
        left_out = sum(cell.said_left_out for cell in cells if cell.status != "failed")
        more = len(lines) - len(shown) + left_out
        yield Note(
            f"{implementation} said while it was checked:",
            verbatim=(*shown, f"... and {scale.counted(more, 'more line')}") if more else shown,
        )
