"""Say what a layer needs and an implementation lacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unsupported:
    """Why an implementation cannot compute a pass of a layer.

    `why` says it in words, for people. `lacks` are the keys of the layer (`strides`, `groups`, ...)
    that stand in the way; or `pass` or `layout`, of somebody's own code. `subject` is the function
    of that code which lacks them; it is empty for an implementation of ours.
    """

    why: str
    lacks: tuple[str, ...] = ()
    subject: str = ""

    def __str__(self) -> str:
        return self.why
