"""Marks of tests that need what only some operating systems have."""

import os
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks at what only Linux has")
posix = pytest.mark.skipif(
    os.name != "posix", reason="Windows has no signals, forks and pseudo-terminals"
)
