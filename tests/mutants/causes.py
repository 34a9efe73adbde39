"""List what is wrong with each mutant, in the diagnosis's own words.

Each mutant has one cause, or two at once. Where two names describe the same mistake equally well,
either set is a right answer.
"""

from __future__ import annotations


def _is(*causes: str) -> tuple[frozenset[str], ...]:
    """Accept these causes only if all of them are named."""
    return (frozenset(causes),)


def _either(*causes: str) -> tuple[frozenset[str], ...]:
    """Accept any one of these causes."""
    return tuple(frozenset([cause]) for cause in causes)


_FORWARD = {
    "true_convolution": _is("kernel-flipped"),
    "kernel_rows_from_below": _is("kernel-flipped"),
    "im2col_last_column_first": _is("kernel-flipped"),
    "fft": _is("kernel-flipped"),
    # A layer may have more filters than channels, or fewer. Then only a reshape exchanges the two
    # without an error.
    "kernel_read_as_channels_first": _either("channels-and-filters-swapped", "wrong-layout"),
    "kernel_on_its_side": _is("height-and-width-swapped"),
    "skips_the_last_taps": _is("tap-missing"),
    "last_tap_wins": _is("tap-missing"),
    "bottom_up_image": _is("input-flipped"),
    "fills_the_output_backwards": _is("result-flipped"),
    "returns_width_before_height": _either("height-and-width-swapped", "wrong-layout"),
    "reshapes_instead_of_transposing": _is("wrong-layout"),
    "columns_in_another_order_than_weights": _is("wrong-layout"),
    "stops_one_row_early": _is("never-written"),
    "forgets_the_plus_one": _is("never-written"),
    "leaves_out_windows_over_the_edge": _is("never-written"),
    "grey_without_last_column": _is("never-written"),
    "pads_bottom_for_top": _is("padding-on-the-wrong-side"),
    "pads_only_at_the_end": _is("padding-on-the-wrong-side"),
    # `same` pads at most one row more below than above. Half the kernel all around, cut off at the
    # end, has that row above instead.
    "same_is_half_the_kernel_all_around": _is("padding-on-the-wrong-side"),
    "pads_and_then_uses_x": _is("padding-ignored"),
    "repeats_the_edge": _is("padding-not-zeros"),
    "wraps_around": _is("padding-not-zeros"),
    "starts_one_pixel_early": _is("padding-off-by-one"),
    "brightens_the_border": _is("border-wrong"),
    "window_moves_one_pixel_at_a_time": _is("strides-ignored"),
    "thins_out_from_the_middle": _is("strides-wrong"),
    "one_stride_for_both": _is("strides-wrong"),
    "strides_as_x_and_y": _is("height-and-width-swapped"),
    "dilation_only_in_the_size": _is("dilation-ignored"),
    "one_dilation_for_both": _is("dilation-wrong"),
    "adds_the_bias_to_nothing": _is("bias-missing"),
    "adds_the_bias_for_every_channel": _is("bias-repeated"),
    "stretches_the_bias_over_columns": _is("bias-on-the-wrong-axis"),
    "adds_the_first_bias_to_all": _is("bias-of-another-filter"),
    "adds_the_bias_of_the_first_group": _is("bias-of-another-filter"),
    "counts_the_centre_twice": _is("tap-twice"),
    "images_from_the_end": _is("order-reversed"),
    "channels_from_the_end": _is("order-reversed"),
    "two_images_at_a_time": _is("one-image-only"),
    "tiles_without_a_halo": _is("tile-seams"),
    "every_group_sees_the_first_channels": _is("groups-ignored"),
    "filters_take_turns": _is("groups-mixed"),
    "channels_take_turns": _is("groups-mixed"),
    "averages_the_channels": _is("mean-instead-of-sum"),
    "last_channel_wins": _is("one-channel-only"),
    "first_filter_for_all": _is("one-filter-only"),
    "first_image_for_all": _is("one-image-only"),
    "total_outlives_its_filter": _is("accumulator-not-reset"),
    "pixels_from_0_to_1": _is("wrong-scale"),
    "half_precision": _is("low-precision"),
    "integer_output": _is("rounded-to-integers"),
    "with_relu": _is("activation-applied"),
    "with_tanh": _is("activation-applied"),
    "clips_to_a_byte": _is("activation-applied"),
    "remembers_the_columns": _is("depends-on-previous-call"),
    "adds_to_an_old_buffer": _is("depends-on-previous-call"),
    "threads_share_one_sum": _is("depends-on-threads"),
    "turns_the_kernel_in_place": _is("modifies-operands"),
    "adds_noise": _is("not-deterministic"),
    "centred_fft_leftovers": _is("unexplained"),
    "strongest_channel": _is("unexplained"),
    "maths_book_without_bias": _is("kernel-flipped", "bias-missing"),
    "assigns_everywhere": _is("tap-missing", "one-channel-only"),
    "turned_and_one_row_short": _is("kernel-flipped", "never-written"),
    "mean_of_channels_then_relu": _is("mean-instead-of-sum", "activation-applied"),
    "repeated_edge_and_no_dilation": _is("padding-not-zeros", "dilation-ignored"),
}

_INPUT_GRADIENTS = {
    "ForgetsTheFlip": _is("kernel-flipped"),
    "FlipsRowsOnly": _is("kernel-flipped"),
    "ScattersColumnsBackwards": _is("kernel-flipped"),
    "FlipsTwice": _is("kernel-flipped"),
    "KernelOnItsSide": _is("height-and-width-swapped"),
    "ReadsKernelAsChannelsFirst": _either("channels-and-filters-swapped", "wrong-layout"),
    "TurnsTheGradient": _is("output-gradient-flipped"),
    "ComesOutUpsideDown": _is("result-flipped"),
    "ReshapesTheGradient": _is("wrong-layout"),
    "AssignsWindows": _is("overlaps-overwritten"),
    "AssignsTaps": _is("overlaps-overwritten"),
    "FancyIndexAdds": _is("overlaps-overwritten"),
    # The vocabulary knows missing positions in the kernel gradient only. In an input gradient they
    # leave a wrong border.
    "LeavesOutTheLastRowOfTheGradient": _either("positions-missing", "border-wrong"),
    "NeverWritesTheLastColumn": _is("never-written"),
    "LeavesOutTheFirstTaps": _is("tap-missing"),
    "KeepsThePads": _is("padding-ignored"),
    # The windows start on the first row, and there are as many of them as with pads. Either all
    # pads lie below and on the right, or there are none and what is beyond the image is dropped.
    "CutsFromTheTopLeft": _either("padding-on-the-wrong-side", "padding-ignored"),
    "CutsBottomForTop": _is("padding-on-the-wrong-side"),
    "EvensOutOverlaps": _is("border-wrong"),
    "CutsOneColumnTooMany": _is("padding-off-by-one"),
    "DoesNotSpreadTheGradient": _is("strides-ignored"),
    "SpreadsByOneStride": _is("strides-wrong"),
    "DilationForgotten": _is("dilation-ignored"),
    "OneDilationForBoth": _is("dilation-wrong"),
    "RepeatsTheKernelOverGroups": _is("groups-ignored"),
    "GroupsFromTheEnd": _is("groups-mixed"),
    "FiltersFromTheEnd": _is("order-reversed"),
    "LastFilterWins": _is("one-filter-only"),
    "SameForEveryChannel": _is("one-channel-only"),
    "FirstImageOnly": _is("one-image-only"),
    "AveragesFilters": _is("mean-instead-of-sum"),
    "PadBufferOfTheLastImage": _is("accumulator-not-reset"),
    "DescendsAtOnce": _is("wrong-scale"),
    "SinglePrecision": _is("low-precision"),
    "PlannedBuffer": _is("depends-on-previous-call"),
    "RemembersTheMatrix": _is("depends-on-previous-call"),
    "ThreadsScatterIntoOneArray": _is("depends-on-threads"),
    "FlipsTheKernelInPlace": _is("modifies-operands"),
    "NormalisesWeights": _is("unexplained"),
    "NoFlipAndMeanOfBatch": _is("kernel-flipped", "mean-instead-of-sum"),
    "AssignsFiltersAndWindows": _is("one-filter-only", "overlaps-overwritten"),
    "NoFlipAndPadsKept": _is("kernel-flipped", "padding-ignored"),
    "NoFlipAndNoStrides": _is("kernel-flipped", "strides-ignored"),
}

_KERNEL_GRADIENTS = {
    "FlipsOutputGradient": _is("output-gradient-flipped"),
    "ReadsGradientRowsBackwards": _is("output-gradient-flipped"),
    "ConvolvesInsteadOfCorrelating": _is("output-gradient-flipped"),
    "FlipsItsResult": _is("result-flipped"),
    "MirrorImages": _is("input-flipped"),
    "ChannelsBeforeFilters": _either("channels-and-filters-swapped", "wrong-layout"),
    "WidthBeforeHeight": _either("height-and-width-swapped", "wrong-layout"),
    "StridesAsXAndY": _is("height-and-width-swapped"),
    "ReshapesTheResult": _is("wrong-layout"),
    "ReshapesTheGradient": _is("wrong-layout"),
    "OneGradientForEveryImage": _is("batch-sum-missing"),
    "MeanOfTheBatch": _is("mean-instead-of-sum"),
    "MeanOfPositions": _is("mean-instead-of-sum"),
    "LastImageWins": _is("one-image-only"),
    "ImagesMeetFromBothEnds": _is("order-reversed"),
    "TotalOutlivesItsFilter": _is("accumulator-not-reset"),
    "LeavesOutTheLastRow": _is("positions-missing"),
    "ForgetsThePlusOne": _is("positions-missing"),
    # Each tap of the kernel is an element of the gradient, so that both names fit.
    "LeavesOutTheLastTaps": _either("tap-missing", "never-written"),
    "FirstChannelForAll": _is("one-channel-only"),
    "FirstFilterForAll": _is("one-filter-only"),
    # Windows start on the first row, as in CutsFromTheTopLeft.
    "ForgetsThePads": _either("padding-ignored", "padding-on-the-wrong-side"),
    "PadsBottomForTop": _is("padding-on-the-wrong-side"),
    "ReflectsTheImage": _is("padding-not-zeros"),
    "PadsOneRowTooMany": _is("padding-off-by-one"),
    "WindowMovesOnePixel": _is("strides-ignored"),
    "OneStrideForBoth": _is("strides-wrong"),
    "DilationForgotten": _is("dilation-ignored"),
    "OneDilationForBoth": _is("dilation-wrong"),
    "EveryGroupSeesTheFirstChannels": _is("groups-ignored"),
    "FiltersTakeTurns": _is("groups-mixed"),
    "TwiceForTheSquare": _is("wrong-scale"),
    "HalfPrecision": _is("low-precision"),
    "RoundsTheResult": _is("rounded-to-integers"),
    "ClipsTheGradient": _is("activation-applied"),
    "AddsUpOverCalls": _is("depends-on-previous-call"),
    "ColumnsOfTheFirstBatch": _is("depends-on-previous-call"),
    "ThreadsShareOneSum": _is("depends-on-threads"),
    "ScalesTheGradientInPlace": _is("modifies-operands"),
    "SamplesPositions": _is("not-deterministic"),
    "OnlyTheSign": _is("unexplained"),
    "TurnedGradientAndMean": _is("output-gradient-flipped", "mean-instead-of-sum"),
    "LastImageUpsideDown": _is("one-image-only", "result-flipped"),
    "MinusAndOneRowShort": _is("wrong-scale", "positions-missing"),
    "ChannelsFirstAndTurnedGradient": (
        frozenset(["channels-and-filters-swapped", "output-gradient-flipped"]),
        frozenset(["wrong-layout", "output-gradient-flipped"]),
    ),
}

CAUSES: dict[str, tuple[frozenset[str], ...]] = {
    f"{file}:{name}": answers
    for file, table in (
        ("forward.py", _FORWARD),
        ("input_gradients.py", _INPUT_GRADIENTS),
        ("kernel_gradients.py", _KERNEL_GRADIENTS),
    )
    for name, answers in table.items()
}
"""Right answers for every mutant, by FILE:NAME."""
