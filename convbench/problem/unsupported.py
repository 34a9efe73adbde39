"""Say what a layer needs and an implementation lacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unsupported:
    """The reason why an implementation cannot compute a pass of a layer.

    `why` gives the reason in words, for people. `lacks` lists the keys of the layer that stand in
    the way (`strides`, `groups`, ...). For people's own code it may also list `pass` or `layout`,
    and `subject` names the function that lacks them. For our implementations `subject` is empty.
    """

    why: str
    lacks: tuple[str, ...] = ()
    subject: str = ""

    def __str__(self) -> str:
        return self.why
