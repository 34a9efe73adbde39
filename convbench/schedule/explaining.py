"""Explain wrong cells together, once all cells of a pass are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from convbench.agreement.diagnosis.common import common
from convbench.agreement.diagnosis.search import likeliest, with_explanation
from convbench.measure.messages import Checked, Failure
from convbench.problem.layer import Pass
from convbench.results.model import Cell, Explanation, MistakeKind
from convbench.schedule.session import CellKey, Session


def explain(session: Session, checked: Mapping[CellKey, Checked | Failure]) -> None:
    """Explain the wrong layers of each (pass, implementation) by as few mistakes as possible.

    Layers that no mistake explains are told by what they have in common, and no right layer has.
    """
    wrong = [key for key, cell in session.cells.items() if cell.status == "wrong"]
    for subject in dict.fromkeys(key[1:] for key in wrong):
        keys = [key for key in wrong if key[1:] == subject]
        answers = [answer for key in keys if isinstance(answer := checked.get(key), Checked)]
        if len(answers) == len(keys):
            chosen = likeliest([answer.explanations for answer in answers])
            for key, answer, explanation in zip(keys, answers, chosen, strict=True):
                if explanation is not None:
                    agreement = with_explanation(answer.agreement, explanation)
                    session.update(key, agreement=agreement, reason=agreement.diagnosis)
        if not _is_of_state(session, subject):
            _tell_what_is_common(session, subject)


STATE = ("depends-on-previous-call", "not-deterministic", "depends-on-threads")
"""Causes that make code wrong on any layer, so that no layer is wrong for another reason."""


def _is_of_state(session: Session, subject: tuple[Pass, str]) -> bool:
    """Tell whether results depend on more than operands. If so, say it of all wrong layers."""
    wrong = [cell for key, cell in session.cells.items() if key[1:] == subject]
    wrong = [cell for cell in wrong if cell.status == "wrong" and cell.agreement is not None]
    found = [cell.agreement.explanation for cell in wrong if cell.agreement]
    of_state = [e for e in found if e is not None and set(STATE) & set(e.causes)]
    if not of_state:
        return False
    by_chance = [e for e in of_state if "not-deterministic" in e.causes]
    first = (by_chance or of_state)[0]
    for cell in wrong:
        if cell.agreement and (by_chance or cell.agreement.explanation not in of_state):
            told = replace(cell.agreement, explanation=replace(first, example=None))
            session.update((cell.layer, *subject), agreement=told)
    return True


def _tell_what_is_common(session: Session, subject: tuple[Pass, str]) -> None:
    """Say where exactly a pass is wrong, unless mistakes give the very results on all its layers.

    A mistake that gives the results of some wrong layers only is an accident of their sizes. What
    was inferred from the results of a layer is the first half of the sentence.
    """
    cells = [cell for key, cell in session.cells.items() if key[1:] == subject]
    wrong = [cell for cell in cells if cell.status == "wrong"]
    if all(map(_is_reproduced, wrong)):
        return
    right = [session.layer(cell.layer) for cell in cells if cell.status == "ok"]
    where = common([session.layer(cell.layer) for cell in wrong], right)
    if where is None:
        return
    found = [e for cell in wrong if cell.agreement and (e := cell.agreement.explanation)]
    named = next((e for e in found if e.causes and not e.reproduces), None)
    sentence = f"it is wrong where {where}: on all such layers, and on no others"
    if named is not None:
        sentence = f"{named.sentence}; {sentence}"
    kinds = named.kinds if named is not None else (MistakeKind("", f"where {where}"),)
    told = Explanation.of(kinds, sentence, reproduces=False)
    for cell in wrong:
        assert cell.agreement is not None
        before = cell.agreement.explanation
        explanation = replace(told, example=before.example if before else None)
        agreement = replace(cell.agreement, explanation=explanation)
        session.update((cell.layer, *subject), agreement=agreement)


def _is_reproduced(cell: Cell) -> bool:
    """Tell whether computing with a mistake gives the very results of a wrong cell."""
    explanation = cell.agreement.explanation if cell.agreement else None
    return explanation is not None and explanation.reproduces
