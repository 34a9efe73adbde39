"""Choose between Linux's own ways of asking the system and the portable ones.

Modules of this room that know a system have both ways. Linux's own are the exact ones. The portable
ones go through psutil and the standard library; every other system takes them.
"""

from __future__ import annotations

import functools
import os
import sys

VARIABLE = "CONVBENCH_SYSTEM"
"""Variable that chooses the ways of a process, and of the workers that inherit it."""

PORTABLE = "portable"
"""Value of VARIABLE that asks for the portable ways on Linux too."""


@functools.cache
def is_linux() -> bool:
    """Whether Linux's own ways are taken. It is asked once: threads ask it within timed calls."""
    return sys.platform == "linux" and os.environ.get(VARIABLE) != PORTABLE
