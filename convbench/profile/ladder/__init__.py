"""Show the way from the loop that people write to fast code, one change a step.

Each step is a file of its own that anybody can read, copy and time. It computes the forward pass of
a layer without pads, strides, dilation or groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convbench.own_code.description import OwnCode


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: what it changes, and the cause that it takes out of the gap.

    `code` is the name of the function or the class in its file.
    """

    name: str
    change: str
    cause: str
    code: str

    @property
    def path(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.py")

    @property
    def own_code(self) -> OwnCode:
        return OwnCode(self.name, f"{__name__}.{self.name}:{self.code}")


RUNGS = (
    Rung("loop64", "a loop over output positions, in float64", "", "convolve"),
    Rung("loop32", "the same loop in float32", "dtype", "convolve"),
    Rung(
        "window_product",
        "a matrix product in each window",
        "element-wise arithmetic",
        "convolve",
    ),
    Rung("columns", "all windows in one matrix product", "python calls", "convolve"),
    Rung("channels_last", "channels last, so that runs are long", "layout", "Convolution"),
    Rung("workspace", "the workspace is reused", "fresh pages", "Convolution"),
    Rung("blocks", "blocks that stay in the cache", "temporaries", "Convolution"),
    Rung("threads", "blocks dealt to threads", "threads", "Convolution"),
    Rung("winograd", "fewer multiplications", "algorithm", "Convolution"),
)


def file_of(cause: str) -> str:
    """Return the file of the step that shows what to do about a cause, or "" if none does."""
    return next((f"profile/ladder/{rung.name}.py" for rung in RUNGS if rung.cause == cause), "")
