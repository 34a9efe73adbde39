"""List every way to compute a pass, each imported only when it is asked for.

To add an implementation, write a file with a class that derives from `contract.Implementation`, and
add a line to BUILT_IN. The conformance tests then cover it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation
from convbench.own_code.description import OwnCode

if TYPE_CHECKING:
    from convbench.implementations.variants import Variant

BUILT_IN: Mapping[str, str] = {
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
"""Class of each built-in implementation, as module:Class, by the implementation's name."""


@dataclass(frozen=True)
class Registry:
    """The names of implementations and what each name stands for.

    The registry is a value that is made once and passed on. `places` has the class of each built-in
    name as module:Class. `named` has the other known names: people's own code with the layouts and
    expressions that they gave for it, and variants of other implementations. Code that is named
    FILE.py:NAME is found without being listed.
    """

    places: Mapping[str, str]
    named: tuple[Variant | OwnCode, ...] = ()

    def knowing(self, *named: Variant | OwnCode) -> Registry:
        """Return a registry with further names. A name that exists already gets the new meaning."""
        known = {each.name: each for each in (*self.named, *named)}
        return replace(self, named=tuple(known.values()))

    def get(self, name: str) -> Implementation:
        """Return the implementation of that name.

        Own code does not run here; it runs in `unsupported` and `prepare`, in the worker. Raises
        ImplementationError for a name that is neither known nor has the form of own code.
        """
        known = next((each for each in self.named if each.name == name), None)
        if known is None and OwnCode.is_spelled(name):
            known = OwnCode(name, name)
        if isinstance(known, OwnCode):
            from convbench.own_code.implementation import OwnImplementation

            return OwnImplementation(known)
        if known is not None:
            from convbench.implementations.variants import VariantImplementation

            return VariantImplementation(known, self.get(known.of))
        if name not in self.places:
            close = get_close_matches(name, self.places, n=1)
            raise ImplementationError(
                f"there is no implementation {name!r}",
                hint=(f"did you mean {close[0]!r}? " if close else "")
                + f"Known: {', '.join(self.places)}; your own code: FILE.py:NAME or "
                "package.module:NAME",
            )
        module, _, attribute = self.places[name].partition(":")
        implementation: Implementation = getattr(import_module(module), attribute)()
        return implementation


REGISTRY = Registry(BUILT_IN)
"""Registry of the built-in implementations. `knowing` adds the own code of a suite."""
