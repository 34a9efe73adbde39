"""convbench: is a Python convolution right, how much slower than Keras Conv2D is it, and why?

The package also offers its fast convolution: `conv2d`, its two gradients, and `plan` (see `api`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convbench.api import Plan, conv2d, conv2d_input_gradient, conv2d_kernel_gradient, plan

__version__ = "0.1.0"

__all__ = [
    "Plan",
    "__version__",
    "conv2d",
    "conv2d_input_gradient",
    "conv2d_kernel_gradient",
    "plan",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a name of `api` when it is first used, so that `convbench --help` needs no NumPy."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module("convbench.api"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
