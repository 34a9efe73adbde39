"""List what is wrong with each mutant of the holdout: any one of its sets is a right answer."""

from __future__ import annotations


def _is(*causes: str) -> tuple[frozenset[str], ...]:
    """Accept these causes only if all of them are named."""
    return (frozenset(causes),)


def _either(*causes: str) -> tuple[frozenset[str], ...]:
    """Accept any one of these causes."""
    return tuple(frozenset([cause]) for cause in causes)


_FORWARD = {
    "textbook_kernel": _is("kernel-flipped"),
    "gemm_straight_to_nchw": _is("wrong-layout"),
    "pads_x_then_y": _is("height-and-width-swapped"),
    "fast_fourier": _is("padding-not-zeros"),
    "slides_over_the_unpadded_size": _is("never-written"),
    "single_precision_buffer": _is("low-precision"),
    "photo_filter": _is("activation-applied", "rounded-to-integers"),
    # The stride is right for rows, and taken to be 1 for columns.
    "strided_view": _either("strides-wrong", "strides-ignored"),
    "atrous": _is("dilation-wrong"),
    "bias_in_the_inner_loop": _is("bias-repeated"),
    "depth_multiplier": _is("groups-mixed"),
    "accepts_and_forgets": _is("groups-ignored", "bias-missing"),
    "one_feature_map_for_all": _is("accumulator-not-reset"),
    "remembers_its_columns": _is("depends-on-previous-call"),
    "einsum_with_a_letter_too_many": _is("unexplained"),
    "from_the_middle_outwards": _is("tap-missing"),
    "convolve_pictures": _is("wrong-scale", "kernel-flipped"),
    "pads_one_more_to_be_safe": _is("padding-off-by-one"),
    "starts_a_bias_of_its_own": _is("not-deterministic"),
}

_INPUT_GRADIENT = {
    "FullCorrelation": _is("kernel-flipped"),
    "QuarterTurn": _is("height-and-width-swapped", "kernel-flipped"),
    "Col2im": _is("overlaps-overwritten", "padding-ignored"),
    "ZerosBefore": _is("strides-wrong"),
    # The stride is not another one, strictly, but the mistake is in how it is used.
    "Upsampling": _either("strides-wrong", "unexplained"),
    "CropsTheOtherSide": _is("padding-on-the-wrong-side"),
    "FilterByFilter": _is("groups-ignored"),
    "SquareHoles": _is("dilation-wrong"),
    "GradientOfThePlainLayer": _is("strides-ignored", "dilation-ignored"),
    "BufferMadeOnce": _is("depends-on-previous-call"),
    "LastFilterWins": _is("one-filter-only"),
    "MatrixOfGradients": _is("wrong-layout"),
    "PixelByPixel": _is("never-written"),
}

_KERNEL_GRADIENT = {
    "AveragesInPlace": _is("modifies-operands", "mean-instead-of-sum"),
    "KeepsTheImagesApart": _is("batch-sum-missing"),
    "LastImageWins": _is("one-image-only"),
    "ColumnsTimesGradient": _is("wrong-layout"),
    "TurnsTheGradientAround": _is("output-gradient-flipped"),
    "StopsBeforeTheLastWindow": _is("positions-missing"),
    "NeighboursForStrides": _is("strides-ignored"),
    "NoZeroGrad": _is("depends-on-previous-call"),
    "EveryOtherChannel": _is("groups-mixed"),
    "PadsAtTheEnd": _is("padding-on-the-wrong-side"),
    "CentresTheGradient": _is("unexplained"),
    "ColumnsFirst": _either("height-and-width-swapped", "wrong-layout"),
    "DescentStep": _is("wrong-scale", "result-flipped"),
}

HOLDOUT: dict[str, tuple[frozenset[str], ...]] = {
    f"holdout.py:{name}": causes
    for name, causes in (_FORWARD | _INPUT_GRADIENT | _KERNEL_GRADIENT).items()
}
"""Right answers for every mutant of the holdout, by FILE:NAME."""
