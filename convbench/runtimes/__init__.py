"""List the runtimes: what computes arrays, and how convbench starts, caps and meters it.

To add one, write a file with a class that derives from `contract.Runtime`, and add a line to
RUNTIMES. Its implementations name it; nothing else asks which runtime one is.
"""

from __future__ import annotations

from importlib import import_module

from convbench.runtimes.contract import Runtime

RUNTIMES = {
    "numpy": "convbench.runtimes.numpy:NumPy",
    "tensorflow": "convbench.runtimes.tensorflow:TensorFlow",
}
"""Class of each runtime by the runtime's name. People's own code has one of its own beside them
(runtimes/own_code.py), since it may compute with any of these."""


def runtimes() -> tuple[Runtime, ...]:
    """All runtimes, installed or not. No framework is imported."""
    return tuple(_made(place) for place in RUNTIMES.values())


def versions() -> dict[str, str]:
    """Versions of the packages of all runtimes that are installed, by package."""
    return {name: version for each in runtimes() for name, version in each.versions().items()}


def _made(place: str) -> Runtime:
    module, _, name = place.partition(":")
    runtime: Runtime = getattr(import_module(module), name)()
    return runtime
