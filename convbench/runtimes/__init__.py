"""List the runtimes: what computes arrays, and how convbench starts, caps and meters it.

To add a runtime, write a file with a class that derives from `contract.Runtime`, and add a line to
RUNTIMES. The implementations name their runtime. No other module asks which runtime it is.
"""

from __future__ import annotations

from importlib import import_module

from convbench.runtimes.contract import Runtime

RUNTIMES = {
    "numpy": "convbench.runtimes.numpy:NumPy",
    "tensorflow": "convbench.runtimes.tensorflow:TensorFlow",
}
"""Class of each runtime, by the runtime's name. People's own code may compute with any of them, so
it has a runtime of its own (runtimes/own_code.py)."""


def runtimes() -> tuple[Runtime, ...]:
    """Return all runtimes, installed or not. No framework is imported."""
    return tuple(_made(place) for place in RUNTIMES.values())


def versions() -> dict[str, str]:
    """Return the versions of the installed packages of all runtimes, by package."""
    return {name: version for each in runtimes() for name, version in each.versions().items()}


def _made(place: str) -> Runtime:
    module, _, name = place.partition(":")
    runtime: Runtime = getattr(import_module(module), name)()
    return runtime
