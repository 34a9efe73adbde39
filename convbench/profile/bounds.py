"""Compute a cell's limits on this machine: arithmetic, memory, and the product of its sizes."""

from __future__ import annotations

from convbench.machine.description import Machine
from convbench.problem.layer import Layer, Pass
from convbench.profile.document import Bound, Bounds, Headline
from convbench.profile.findings import Examination


def bounds(
    layer: Layer,
    pass_: Pass,
    headline: Headline,
    found: Examination,
    machine: Machine,
    threads: int,
) -> Bounds:
    """Return the limits, in seconds of a call on the whole layer.

    `arithmetic` and `memory` are the two sides of the roofline (Williams, Waterman and Patterson,
    "Roofline", 2009), which a machine without measured peaks lacks. `matrix product` is np.matmul
    of the same sizes, as it runs here.
    """
    moved = sum(
        layer.itemsize * elements
        for elements in (
            layer.batch_size * layer.input_shape[0] * layer.input_shape[1] * layer.channels,
            layer.batch_size * layer.output_size[0] * layer.output_size[1] * layer.filters,
            layer.kernel_size[0]
            * layer.kernel_size[1]
            * (layer.channels // layer.groups)
            * layer.filters,
        )
    )
    scale = layer.flops / found.layer.flops
    limits = [
        _bound(
            "matrix product",
            found.products.many * scale,
            headline,
            "np.matmul of the same sizes in float32, on contiguous arrays, into an existing one",
        )
    ]
    ridge = 0.0
    calibration = machine.calibration
    if calibration is not None:
        rate = calibration.sgemm.get(threads, max(calibration.sgemm.values()))
        copied = calibration.copy_bytes_per_s
        ridge = rate / copied
        limits += [
            _bound("arithmetic", layer.flops / rate, headline, "FLOPs at the measured SGEMM peak"),
            _bound("memory", moved / copied, headline, "operands and result at copy bandwidth"),
        ]
    return Bounds(layer.flops, moved, layer.flops / moved, ridge, tuple(limits))


def _bound(name: str, seconds: float, headline: Headline, why: str) -> Bound:
    return Bound(name, seconds, seconds / headline.time_s, seconds / headline.versus_s, why)
