"""The real command line in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "suites" / "tiny.yaml"
USERS = ROOT / "tests" / "users" / "convolutions.py"


def command(*arguments):
    return [sys.executable, "-m", "convbench", *map(str, arguments)]


def convbench(*arguments, cwd=ROOT, timeout=120, **environment):
    """The finished process: its exit code, stdout and stderr."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_tiny(output, *arguments, **keywords):
    """`convbench run` of the smallest suite, and its result file as plain data."""
    done = convbench("run", TINY, "--effort", "smoke", "-o", output, *arguments, **keywords)
    document = json.loads(output.read_text()) if output.exists() else None
    return done, document


def cells(document):
    return {
        (cell["layer"], cell["pass"], cell["implementation"]): cell
        for cell in document["convbench"]["cells"]
    }
