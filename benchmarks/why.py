"""Write docs/why-is-my-convolution-slow.md from a measured ladder.

    convbench profile --ladder -o results/ladder.json
    python benchmarks/why.py > docs/why-is-my-convolution-slow.md

The words are in this module; the figures come from the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from convbench.profile.ladder import RUNGS
from convbench.profile.ladder_tables import fastest_keras
from convbench.report.views.scale import bounds, significant
from convbench.report.views.table import Kind
from convbench.results import file as result_file
from convbench.results.model import Cell, ResultFile

ROOT = Path(__file__).parents[1]
FILE = ROOT / "results" / "ladder.json"

WORDS = {
    "loop64": "People write this loop first, and NumPy's arrays are float64 by default. For each "
    "output position the loop multiplies a window by all kernels into a temporary array, and sums "
    "that array.",
    "loop32": "This step is the same loop in single precision. Half the bytes go through the "
    "caches, and an instruction takes twice the numbers. Keras computes in float32 too, so that "
    "only now both do the same work.",
    "window_product": "Multiply-and-sum writes each product to memory and reads it again to add "
    "it. A matrix product keeps its sums in registers and reads each number many times from the "
    "cache, and BLAS libraries have been tuned for that over decades. One line changes.",
    "columns": "The loop makes a few calls of NumPy for each position. Each call has some "
    "microseconds of Python around it, and its product is too small for BLAS. With all windows in "
    "one matrix (im2col) there is one product. The matrix is not always a gain. It must be written "
    "first, into pages that the system hands out anew, and it is kernel height times kernel width "
    "as large as the input. With channels first, its elements are gathered one kernel row at a "
    "time.",
    "channels_last": "With channels last, a kernel row of a window is one run of memory, of kernel "
    "width times channels numbers. The output of the product is the output of the layer, without a "
    "transposition.",
    "workspace": "A new array of megabytes is made of new pages. The system zeroes each page when "
    "it is first touched, and takes the page back when the array goes. If arrays are allocated "
    "once and written into again (`out=`), only the work itself is left.",
    "blocks": "A matrix of columns that is larger than the cache is written to memory and read "
    "again. Blocks of it stay in the cache. Blocks alone can cost more than they gain, because "
    "each block is a call, and BLAS's threads must meet for each small product.",
    "threads": "NumPy copies with one thread, and only its products use BLAS's threads. If blocks "
    "are dealt to threads of our own, they are copied in parallel. Each of our threads multiplies "
    "with one BLAS thread, which waits for no other.",
    "winograd": "For 3x3 kernels, a tile of 4x4 outputs needs 36 multiplications instead of 144. "
    "The price is transforms before and after. Here they are small matrix products, one image at a "
    "time, on the threads of the step before. They use up most of the time that is saved. "
    "convbench's own `winograd`, which keeps tiles in the cache and allocates nothing, shows what "
    "the algorithm can gain ([algorithms.md](algorithms.md)).",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    print(page(result_file.load(parser.parse_args().file).result), end="")


def page(result: ResultFile) -> str:
    cells = {cell.implementation: cell for cell in result.cells}
    keras = fastest_keras(cells)
    assert keras is not None
    (layer,) = result.suite.layers
    first = cells[RUNGS[0].name]
    best = min((cells[rung.name] for rung in RUNGS), key=_seconds)
    blas = result.software.blas[0]
    parts = [
        "# Why is my convolution slow?",
        "<!-- benchmarks/why.py writes this page from results/ladder.json: change those. -->",
        "Read this page if you wrote a convolution in NumPy as everybody writes it first, and "
        "wonder what makes other convolutions fast.",
        f"The fastest of the {len(RUNGS)} small steps on this page is "
        f"{significant(_seconds(first) / _seconds(best))} times as fast as the loop that people "
        f"write. Each was measured on one layer ({layer.geometry()}). The fastest way to run "
        f"Keras's Conv2D is {significant(_seconds(first) / _seconds(keras))} times as fast as the "
        f"loop, and {significant(_seconds(best) / _seconds(keras))} times as fast as "
        f"`{best.implementation}`.",
        f"Machine: {result.machine.cpu}, {result.threads} threads, {blas.library} with "
        f"{blas.kernels} kernels, NumPy {result.software.versions['numpy']}, TensorFlow "
        f"{result.software.versions['tensorflow']}; {result.rounds} rounds. Your machine "
        "differs. `convbench profile --ladder` measures the steps on yours, and `convbench "
        "profile` takes your own code apart ([profiling](profiling.md)).",
        _table(cells, keras),
    ]
    before: Cell | None = None
    for number, rung in enumerate(RUNGS, 1):
        cell = cells[rung.name]
        parts.append(f"## {number}. {rung.change[0].upper()}{rung.change[1:]}")
        gain = ""
        if before is not None:
            ratio = _seconds(before) / _seconds(cell)
            gain = (
                f", {significant(ratio)} times as fast as the step before"
                if ratio >= 1
                else f", {significant(1 / ratio)} times as long as the step before"
            )
        path = f"../convbench/profile/ladder/{rung.name}.py"
        parts.append(f"{_time(cell)}{gain} ([{rung.name}.py]({path})).")
        parts.append(WORDS[rung.name])
        before = cell
    parts.append(
        "## What is left\n\nKeras runs oneDNN, which packs blocks of channels, convolves without "
        "columns, and uses threads inside. `auto` ([algorithms.md](algorithms.md)) is as fast in "
        "NumPy on most layers. It takes each of these steps further, and chooses the algorithm by "
        "the layer."
    )
    return "\n\n".join(parts) + "\n"


def _table(cells: dict[str, Cell], keras: Cell) -> str:
    lines = ["| step | time, 99 % interval | × the step before | × Keras |", "|---|---|---|---|"]
    before = None
    for name in (*(rung.name for rung in RUNGS), keras.implementation):
        cell = cells[name]
        gain = "" if before is None or cell is keras else significant(before / _seconds(cell))
        over = significant(_seconds(keras) / _seconds(cell))
        lines.append(f"| `{name}` | {_time(cell)} | {gain} | {over} |")
        before = _seconds(cell)
    return "\n".join(lines)


def _seconds(cell: Cell) -> float:
    assert cell.time is not None, f"{cell.implementation} was not timed"
    return cell.time.time_s


def _time(cell: Cell) -> str:
    assert cell.time is not None
    interval = f" {bounds(cell.time.ci99_s, Kind.TIME_S)}" if cell.time.ci99_s else ""
    return f"{significant(cell.time.time_s * 1e3)} ms{interval}"


if __name__ == "__main__":
    main()
