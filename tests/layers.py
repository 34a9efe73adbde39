"""Draw small layers with hypothesis, with every parameter of Conv2D in play."""

from hypothesis import strategies as st

from convbench.errors import LayerError
from convbench.problem.layer import Layer

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADS = st.tuples(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3))
)


@st.composite
def layers(draw, dtypes=("float32", "float64")):
    groups = draw(st.integers(1, 3))
    given = {
        "name": "drawn",
        "input_shape": (
            draw(st.integers(1, 9)),
            draw(st.integers(1, 9)),
            groups * draw(st.integers(1, 3)),
        ),
        "filters": groups * draw(st.integers(1, 3)),
        "kernel_size": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "strides": draw(PAIR),
        "padding": draw(st.one_of(st.sampled_from(["valid", "same"]), PADS)),
        "dilation_rate": draw(PAIR),
        "groups": groups,
        "use_bias": draw(st.booleans()),
        "batch_size": draw(st.integers(1, 3)),
        "dtype": draw(st.sampled_from(dtypes)),
    }
    try:
        return Layer(**given)
    except LayerError:  # the kernel does not fit; with same padding there is always an output
        return Layer(**{**given, "padding": "same"})
