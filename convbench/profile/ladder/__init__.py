"""The ladder: from the loop that people write to what is fast, one change a step.

Each step is a file of its own that anybody can read, copy and time; it computes the forward pass of
a layer without pads, strides, dilation and groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convbench.own_code import OwnCode

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Rung:
    """A step of the ladder. `cause` is what it takes out of the gap."""

    name: str
    change: str
    cause: str
    code: str = "convolve"

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @property
    def own_code(self) -> OwnCode:
        return OwnCode(self.name, f"{self.path}:{self.code}" if self.code else str(self.path))


RUNGS = (
    Rung("loop64", "a loop over output positions, in float64", ""),
    Rung("loop32", "in float32", "dtype"),
    Rung("window_product", "a product in the window", "element-wise arithmetic"),
    Rung("columns", "all columns, one product", "python calls"),
    Rung("channels_last", "channels last: long runs", "layout", ""),
    Rung("workspace", "the workspace is reused", "fresh pages", "Convolution"),
    Rung("blocks", "blocks that stay in the cache", "temporaries", "Convolution"),
    Rung("threads", "blocks on threads", "threads", "Convolution"),
    Rung("winograd", "Winograd: fewer multiplications", "algorithm", ""),
)


def file_of(cause: str) -> str:
    """The step that shows what to do about a cause; empty where none does."""
    return next((f"profile/ladder/{rung.name}.py" for rung in RUNGS if rung.cause == cause), "")
