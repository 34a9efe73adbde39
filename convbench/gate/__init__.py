"""Turn rules and results into verdicts and one exit code. Measure nothing."""

from __future__ import annotations

from convbench.gate.decision import (
    ALPHA,
    LOOKS,
    SECOND_LOOK,
    TOLERANCE,
    Evidence,
    Margins,
    OnInconclusive,
    Outcome,
    Question,
    Subject,
    Verdict,
    after_second_look,
    decide,
    exit_code,
    fails,
    is_open,
    look_alpha,
)
from convbench.gate.questions import in_common
from convbench.gate.terms import Judgement, Terms, why_not_of

__all__ = [
    "ALPHA",
    "LOOKS",
    "SECOND_LOOK",
    "TOLERANCE",
    "Evidence",
    "Judgement",
    "Margins",
    "OnInconclusive",
    "Outcome",
    "Question",
    "Subject",
    "Terms",
    "Verdict",
    "after_second_look",
    "decide",
    "exit_code",
    "fails",
    "in_common",
    "is_open",
    "look_alpha",
    "why_not_of",
]
