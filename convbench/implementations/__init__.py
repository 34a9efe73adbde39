"""The registry: one line an implementation, imported only when asked for.

To add one, write a file with a class that fulfils `contract.Implementation` and add a line here;
the conformance tests pick it up.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation

if TYPE_CHECKING:
    from convbench.implementations.variants import Variant

REGISTRY: dict[str, str] = {
    "loop": "convbench.implementations.loop:Loop",
    "im2col": "convbench.implementations.im2col:Im2col",
    "keras": "convbench.implementations.keras_eager:KerasEager",
    "keras-graph": "convbench.implementations.keras_graph:KerasGraph",
    "keras-xla": "convbench.implementations.keras_xla:KerasXla",
}

_variants: dict[str, Variant] = {}
"""What this process knows beside the registry; a worker is told when it starts."""


def add_variants(*added: Variant) -> None:
    """Makes implementations known under further names, for as long as this process lives."""
    _variants.update((variant.name, variant) for variant in added)


def known_variants() -> tuple[Variant, ...]:
    return tuple(_variants.values())


def is_user_code(name: str) -> bool:
    """Whether `name` has the form of the user's own code, `FILE.py:NAME`."""
    return ":" in name


def get(name: str) -> Implementation:
    """The implementation of that name.

    `FILE.py:NAME` does not import the file: that happens in `prepare`, in the worker.
    Raises ImplementationError for a name that is neither registered nor of that form.
    """
    if name in _variants:
        from convbench.implementations.variants import VariantImplementation

        return VariantImplementation(_variants[name], get(_variants[name].of))
    if is_user_code(name):
        from convbench.implementations.user import UserFunction

        return UserFunction(name)
    if name not in REGISTRY:
        close = get_close_matches(name, REGISTRY, n=1)
        raise ImplementationError(
            f"there is no implementation {name!r}",
            hint=(f"did you mean {close[0]!r}? " if close else "")
            + f"Known: {', '.join(REGISTRY)}; your own: FILE.py:NAME",
        )
    module, _, attribute = REGISTRY[name].partition(":")
    implementation: Implementation = getattr(import_module(module), attribute)()
    return implementation
