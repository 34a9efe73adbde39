"""Choose between Linux's own ways of asking the system and the portable ones.

A module of this room that knows a system has both ways. Linux's own ways are the exact ones. The
portable ways go through psutil and the standard library, and every other system uses them.
"""

from __future__ import annotations

import functools
import os
import sys

VARIABLE = "CONVBENCH_SYSTEM"
"""Variable that chooses the ways of a process and of the workers that inherit the variable."""

PORTABLE = "portable"
"""Value of VARIABLE that asks for the portable ways on Linux as well."""


@functools.cache
def is_linux() -> bool:
    """Return whether to use Linux's own ways.

    The answer is kept, since threads ask for it within timed calls.
    """
    return sys.platform == "linux" and os.environ.get(VARIABLE) != PORTABLE
