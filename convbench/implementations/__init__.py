"""List every way to compute a pass, each imported only when it is asked for.

To add one, write a file with a class that fulfils `contract.Implementation` and add a line to
REGISTRY; the conformance tests pick it up.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation
from convbench.own_code.description import OwnCode, is_own_code

if TYPE_CHECKING:
    from convbench.implementations.variants import Variant

REGISTRY: dict[str, str] = {
    "loop": "convbench.implementations.numpy.loop:Loop",
    "naive-im2col": "convbench.implementations.numpy.naive_im2col:NaiveIm2col",
    "im2col": "convbench.implementations.numpy.im2col:Im2col",
    "mec": "convbench.implementations.numpy.mec:Mec",
    "shift-gemm": "convbench.implementations.numpy.shift_gemm:ShiftGemm",
    "winograd": "convbench.implementations.numpy.winograd:Winograd",
    "winograd-2x2": "convbench.implementations.numpy.winograd:SmallTiles",
    "fft": "convbench.implementations.numpy.fft:Fft",
    "direct": "convbench.implementations.numpy.direct:Direct",
    "depthwise": "convbench.implementations.numpy.depthwise:Depthwise",
    "auto": "convbench.implementations.numpy.auto:Auto",
    "keras": "convbench.implementations.keras.eager:KerasEager",
    "keras-graph": "convbench.implementations.keras.graph:KerasGraph",
    "keras-xla": "convbench.implementations.keras.xla:KerasXla",
}

_known: dict[str, Variant | OwnCode] = {}
"""Names that this process knows beside the registry. A worker is told them when it starts."""


def add_names(*added: Variant | OwnCode) -> None:
    """Makes implementations known under further names, for as long as this process lives."""
    _known.update((named.name, named) for named in added)


def known_names() -> tuple[Variant | OwnCode, ...]:
    return tuple(_known.values())


def own_code(name: str) -> OwnCode | None:
    """How the user's own code of that name is called; None for any other implementation."""
    known = _known.get(name)
    if isinstance(known, OwnCode):
        return known
    if known is not None:
        return own_code(known.of)
    return OwnCode(name, name) if is_own_code(name) else None


def get(name: str) -> Implementation:
    """The implementation of that name.

    Own code is not run here: that happens in `unsupported` and `prepare`, in the worker.
    Raises ImplementationError for a name that is neither known nor spelled as own code is.
    """
    known = _known.get(name)
    if known is not None and not isinstance(known, OwnCode):
        from convbench.implementations.variants import VariantImplementation

        return VariantImplementation(known, get(known.of))
    own = own_code(name)
    if own is not None:
        from convbench.own_code.implementation import UserCode

        return UserCode(own)
    if name not in REGISTRY:
        close = get_close_matches(name, REGISTRY, n=1)
        raise ImplementationError(
            f"there is no implementation {name!r}",
            hint=(f"did you mean {close[0]!r}? " if close else "")
            + f"Known: {', '.join(REGISTRY)}; your own: FILE.py:NAME or package.module:NAME",
        )
    module, _, attribute = REGISTRY[name].partition(":")
    implementation: Implementation = getattr(import_module(module), attribute)()
    return implementation
