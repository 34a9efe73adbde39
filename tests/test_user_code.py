"""Test own code: where it is found, how it is called, which axes it has, and what is forbidden."""

import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.agreement.diagnosis.search import Search, diagnose
from convbench.errors import ImplementationError
from convbench.implementations.registry import REGISTRY
from convbench.own_code import description
from convbench.own_code.description import OwnCode
from convbench.own_code.implementation import OwnImplementation
from convbench.own_code.layouts import Layout, Layouts
from convbench.own_code.saying import listening
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from tests.cli import ROOT, USERS

PLAIN = Layer("plain", (9, 8, 3), 4, (3, 2), batch_size=2)
STRIDED = Layer("strided", (9, 8, 3), 4, (3, 2), strides=(2, 2), batch_size=2)
UNEVEN = Layer("uneven", (9, 8, 3), 4, (3, 2), strides=(2, 1), batch_size=2)
PADDED = Layer("padded", (9, 8, 3), 4, (3, 2), padding=((1, 1), (1, 1)), batch_size=2)
PADS = Layer("pads", (9, 8, 3), 4, (3, 2), padding=((0, 1), (2, 0)), batch_size=2)
SAME = Layer("same", (9, 8, 3), 4, (3, 2), padding="same", batch_size=2)
BIASED = Layer("biased", (9, 8, 3), 4, (3, 2), use_bias=True, batch_size=2)

HEAD = """
import numpy as np
from tests.styles.as_module import forward as right
seen = []
"""


@pytest.fixture
def own(tmp_path):
    """Return a function that makes own code from a source; `name` is what convbench calls."""

    def made(source, name="f", **called):
        path = tmp_path / f"own{len(list(tmp_path.iterdir()))}.py"
        path.write_text(HEAD + textwrap.dedent(source))
        return OwnImplementation(OwnCode("mine", f"{path}:{name}" if name else str(path), **called))

    return made


def run(code, layer, pass_=Pass.FORWARD):
    """Call the code once, and return what it noted last in `seen`."""
    prepared = code.prepare(layer, pass_, 1)
    prepared.load(operands.floats(layer, pass_, 0))
    prepared.to_numpy(prepared.run())
    module = sys.modules[prepared._function.__module__]
    return module.seen[-1]


# The arguments of a function


@pytest.mark.parametrize(
    ("parameters", "layer", "got"),
    [
        ("strides", STRIDED, (2, 2)),
        ("strides=(1, 1)", STRIDED, (2, 2)),
        ("strides=1", STRIDED, 2),
        ("strides=1", PLAIN, 1),
        ("*, strides", UNEVEN, (2, 1)),
        ("padding", PADS, ((0, 1), (2, 0))),
        ("padding=0", PADDED, 1),
        ("padding=(0, 0)", PADDED, (1, 1)),
        ("padding='valid'", SAME, "same"),
        ("padding='valid'", PLAIN, "valid"),
        ("padding='VALID'", SAME, "SAME"),
        ("padding='VALID'", PLAIN, "VALID"),
        ("padding='Same'", PLAIN, "Valid"),
        ("padding='full'", SAME, "same"),
        ("padding=[0, 0]", PADDED, [1, 1]),
        ("padding=[[0, 0], [0, 0]]", PADS, [[0, 1], [2, 0]]),
        ("padding=((0, 0), (0, 0))", PADS, ((0, 1), (2, 0))),
        ("padding=(0, 0, 0, 0)", PADDED, (1, 1, 1, 1)),
        ("padding=((0, 0), (0, 0), (0, 0), (0, 0))", PLAIN, ((0, 0),) * 4),
        ("padding=None", PADS, ((0, 1), (2, 0))),
        ("padding=False", PLAIN, False),
        ("padding=np.int64(0)", PADDED, 1),
        ("strides=[1, 1]", STRIDED, [2, 2]),
        ("strides=(1,)", STRIDED, (2,)),
        ("strides=[1, 1, 1, 1]", PLAIN, [1, 1, 1, 1]),
        ("strides=np.int32(1)", STRIDED, 2),
        ("dtype", PLAIN, "float32"),
        ("dtype='float64'", PLAIN, "float32"),
        ("dtype=np.float64", PLAIN, np.float32),
        ("dtype=np.dtype('float64')", PLAIN, np.dtype("float32")),
        ("dilation_rate=1", PLAIN, 1),
        ("groups=1", PLAIN, 1),
        ("threads", PLAIN, 1),
        ("layer", PLAIN, PLAIN),
        ("input_shape", PLAIN, (2, 3, 9, 8)),
        ("kernel_size", PLAIN, (3, 2)),
    ],
)
def test_a_keyword_comes_in_the_form_of_its_default(own, parameters, layer, got):
    name = parameters.replace("*, ", "").partition("=")[0]
    code = own(f"""
        def f(x, kernel, {parameters}):
            seen.append({name})
            return np.zeros({layer.batch_size, 4, *layer.output_size})
    """)
    assert code.unsupported(layer, Pass.FORWARD) is None
    given = run(code, layer)
    assert given == got
    assert type(given) is type(got)


@pytest.mark.parametrize(
    ("parameters", "layer", "reason"),
    [
        ("", STRIDED, "f does not accept strides"),
        ("", PADS, "f does not accept padding"),
        ("stride=1", STRIDED, "f does not accept strides (but has stride)"),
        ("strides=1", UNEVEN, "f takes strides as one number"),
        ("padding=0", PADS, "f takes padding as one number"),
        ("padding=(0, 0)", PADS, "f takes padding as (height, width), not as four pads"),
        ("padding='valid'", PADS, "f takes padding as a name, not as pads"),
        ("padding='FULL'", PADS, "f takes padding as a name, not as pads"),
        ("padding=[0, 0]", PADS, "f takes padding as (height, width), not as four pads"),
        ("padding=(0, 0, 0, 0)", PADS, "f takes padding as 4 numbers, whose order is not known"),
        ("padding=False", PADDED, "f takes padding as False, which cannot say how much"),
        ("padding=np.int64(0)", PADS, "f takes padding as one number"),
        (
            "padding=((0, 0), (0, 0), (0, 0))",
            PADS,
            "f takes padding as ((0, 0), (0, 0), (0, 0)), not as ((0, 0), (0, 0))",
        ),
        ("strides=[1, 1, 1, 1]", STRIDED, "f takes strides as 4 numbers, whose order is not known"),
        ("strides=(1,)", UNEVEN, "f takes strides as one number"),
        ("layer", BIASED, "f does not accept bias"),
    ],
)
def test_a_layer_that_needs_what_the_code_lacks_is_unsupported(own, parameters, layer, reason):
    code = own(f"def f(x, kernel, {parameters}): return x")
    assert code.unsupported(layer, Pass.FORWARD).why == reason


def test_operands_go_by_name_where_they_are_named(own):
    code = own("""
        def f(kernel, x):
            seen.append((kernel.shape, x.shape))
            return np.zeros((2, 4, 7, 7))
    """)
    assert run(code, PLAIN) == ((4, 3, 3, 2), (2, 3, 9, 8))


@pytest.mark.parametrize(
    ("parameters", "got"),
    [
        ("image, filters", "filters.shape"),
        ("x, filters", "filters.shape"),
        ("image, filters, strides=1", "filters.shape"),
        ("x, kernel, filters", "kernel.shape"),
        ("image, weights, filters", "weights.shape"),
    ],
)
def test_filters_in_the_place_of_the_kernel_are_the_kernel(own, parameters, got):
    code = own(f"""
        def f({parameters}):
            seen.append({got})
            return np.zeros((2, 4, 7, 7))
    """)
    assert run(code, PLAIN) == (4, 3, 3, 2)


def test_a_bias_is_given_where_there_is_one(own):
    code = own("""
        def f(x, w, bias=None):
            seen.append(bias)
            return np.zeros((2, 4, 7, 7))
    """)
    assert run(code, PLAIN) is None
    assert run(code, BIASED).shape == (4,)


@pytest.mark.parametrize(
    ("layer", "got"),
    [
        (PLAIN, {}),
        (STRIDED, {"strides": (2, 2)}),
        (PADS, {"padding": ((0, 1), (2, 0))}),
    ],
)
def test_code_that_takes_any_keywords_gets_those_that_the_layer_needs(own, layer, got):
    code = own(f"""
        def f(*arguments, **keywords):
            seen.append((len(arguments), keywords))
            return np.zeros({layer.batch_size, 4, *layer.output_size})
    """)
    assert run(code, layer) == (2, got)


def test_a_parameter_that_convbench_cannot_give_is_refused(own):
    code = own("def f(x, kernel, mode): return x")
    with pytest.raises(ImplementationError, match="'mode' that convbench has no value for"):
        code.unsupported(PLAIN, Pass.FORWARD)


# Classes, modules, expressions


def test_a_class_is_planned_for_the_layer(own):
    code = own(
        """
        class Conv:
            def __init__(self, filters, kernel_size, strides=(1, 1)):
                self.planned = filters, kernel_size, strides
            def forward(self, x, kernel):
                seen.append(self.planned)
                return np.zeros((2, 4, 4, 4))
        """,
        "Conv",
    )
    assert code.unsupported(STRIDED, Pass.FORWARD) is None
    assert run(code, STRIDED) == (4, (3, 2), (2, 2))
    assert code.unsupported(STRIDED, Pass.INPUT_GRADIENT).why == "it has no input_gradient"


@pytest.mark.parametrize(
    ("parameters", "given"),
    [
        ("layer, strides", "(layer, strides)"),
        ("spec", "spec"),
        ("spec, strides=1", "(spec, strides)"),
    ],
)
def test_a_class_can_take_the_layer_as_a_whole(own, parameters, given):
    code = own(
        f"""
        class Conv:
            def __init__(self, {parameters}):
                self.given = {given}
            def forward(self, x, kernel):
                seen.append(self.given)
                return np.zeros((2, 4, 4, 4))
        """,
        "Conv",
    )
    strides = {"(layer, strides)": (2, 2), "(spec, strides)": 2}
    assert run(code, STRIDED) == ((STRIDED, strides[given]) if given in strides else STRIDED)


@pytest.mark.parametrize(
    "parameters", ["in_channels, filters, kernel_size", "spec, filters", "a, b"]
)
def test_an_unknown_parameter_beside_others_is_not_taken_for_the_layer(own, parameters):
    code = own(
        f"""
        class Conv:
            def __init__(self, {parameters}): pass
            def forward(self, x, kernel): pass
        """,
        "Conv",
    )
    unknown = parameters.partition(",")[0]
    with pytest.raises(ImplementationError, match=f"'{unknown}' that convbench has no value for"):
        code.unsupported(STRIDED, Pass.FORWARD)


CALLED = """
class Conv:
    def __init__(self, strides=1): self.strides = strides
    def __call__(self, x, kernel):
        seen.append(self.strides)
        return np.zeros((2, 4, 4, 4))
    def kernel_gradient(self, x, output_gradient, kernel_size): pass
made = Conv(2)
class Empty: pass
class Misspelt:
    def foward(self, x, kernel): pass
class Odd:
    forward = 3
value = Empty()
"""


@pytest.mark.parametrize("name", ["Conv", "made"])
def test_an_object_that_can_be_called_is_a_function(own, name):
    code = own(CALLED, name)
    assert code.unsupported(PLAIN, Pass.KERNEL_GRADIENT) is None
    assert code.unsupported(PLAIN, Pass.INPUT_GRADIENT).why == "it has no input_gradient"
    if name == "Conv":
        assert run(code, STRIDED) == 2


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("Empty", "the class Empty has none of forward, input_gradient and", "write one of them"),
        ("Misspelt", "the class Misspelt has none", "did you mean forward where it has foward?"),
        ("Odd", "the class Odd has none", "write one of them"),
        ("np", "the module numpy has none", "write one of them"),
        ("__name__", "__name__ is a value of type str, which cannot be called", "expected a fun"),
        ("value", "value is a value of type Empty, which cannot be called", "expected a function"),
    ],
)
def test_an_object_that_cannot_be_called_is_refused_with_a_hint(own, name, message, hint):
    with pytest.raises(ImplementationError) as refused:
        own(CALLED, name).unsupported(PLAIN, Pass.FORWARD)
    assert message in refused.value.message
    assert refused.value.hint.startswith(hint)


def test_a_module_can_be_own_code(own):
    code = own(
        """
        layout = "NHWC"
        def kernel_gradient(x, output_gradient, kernel_size):
            seen.append((x.shape, output_gradient.shape, kernel_size))
            return np.zeros((4, 3, 3, 2))
        """,
        "",
    )
    assert run(code, PLAIN, Pass.KERNEL_GRADIENT) == ((2, 9, 8, 3), (2, 7, 7, 4), (3, 2))


def test_expressions_name_what_they_need(own):
    passes = {Pass.INPUT_GRADIENT: "convolve(output_gradient, kernel, mode=strides[0])"}
    code = own(
        """
        class Teaching:
            def convolve(self, x, k, mode):
                seen.append((x.shape, mode))
                return np.zeros((2, 3, 9, 8))
        """,
        "Teaching",
        passes=passes,
    )
    assert run(code, STRIDED, Pass.INPUT_GRADIENT) == ((2, 4, 4, 4), 2)
    assert (
        code.unsupported(PLAIN, Pass.FORWARD).why == "its `passes` have no expression for forward"
    )
    assert code.unsupported(PADS, Pass.INPUT_GRADIENT).why.endswith("does not accept padding")


def test_filters_in_an_expression_are_a_number(own):
    code = own(
        "def g(*a): return seen.append(a[2]) or np.zeros((2, 4, 7, 7))",
        "g",
        passes={Pass.FORWARD: "g(x, kernel, filters)"},
    )
    prepared = code.prepare(PLAIN, Pass.FORWARD, 1)
    prepared.load(operands.floats(PLAIN, Pass.FORWARD, 0))
    prepared.run()
    assert prepared._function.__globals__["seen"] == [4]
    alone = own("def g(*a): pass", "g", passes={Pass.FORWARD: "g(x, filters)"})
    with pytest.raises(ImplementationError, match="has no parameter for kernel"):
        alone.unsupported(PLAIN, Pass.FORWARD)


def test_an_expression_cannot_name_what_its_pass_lacks(own):
    code = own("def g(a, b): return a", "g", passes={Pass.KERNEL_GRADIENT: "g(x, kernel)"})
    with pytest.raises(ImplementationError, match="names kernel, which the kernel-gradient pass"):
        code.unsupported(PLAIN, Pass.KERNEL_GRADIENT)


def test_a_gradient_without_input_shape_needs_strides_that_leave_no_rest(own):
    code = own(
        """
        class Conv:
            @staticmethod
            def input_gradient(output_gradient, kernel, strides): return 0
        """,
        "Conv",
    )
    assert code.unsupported(PLAIN, Pass.INPUT_GRADIENT) is None
    rest = Layer("rest", (10, 8, 3), 4, (3, 2), strides=(2, 2))
    assert "lacks input_shape" in code.unsupported(rest, Pass.INPUT_GRADIENT).why


# Axes


@pytest.mark.parametrize("letters", ["NCHW", "NHWC", "CHWN", "WHCN"])
def test_an_array_survives_a_layout_and_back(letters):
    layout, array = Layout(letters, "NHWC"), np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    theirs = layout.to_code(array)
    assert theirs.shape == layout.shape(array.shape)
    assert theirs.flags.c_contiguous
    np.testing.assert_array_equal(layout.to_ours(theirs), array)


def test_an_axis_of_size_1_can_be_left_out():
    layout, array = Layout("NHW", "NHWC"), np.arange(24).reshape(2, 3, 4, 1)
    assert layout.to_code(array).shape == (2, 3, 4)
    assert layout.to_ours(layout.to_code(array)).shape == (2, 3, 4, 1)
    assert layout.left_out((2, 3, 4, 5)) == "C"


def test_a_layout_without_channels_is_for_one_channel(own):
    code = own("def f(x, kernel): return x", layout="NHW", kernel_layout="OHW")
    assert code.unsupported(PLAIN, Pass.FORWARD).why.startswith(
        "its layout has no axis for channels"
    )
    assert code.unsupported(Layer("one", (9, 8, 1), 4, (3, 2)), Pass.FORWARD) is None


@pytest.mark.parametrize(
    ("layout", "output"),
    [("CHW", "CHW"), ("HWC", "HWC"), ("HW", "CHW"), ("NHW", "NCHW"), ("NHWC", "NHWC")],
)
def test_the_output_has_a_batch_if_the_input_has_one(layout, output):
    found = Layouts.of(OwnCode("mine", "f.py", layout=layout), object())
    assert found.output.letters == output


def test_code_may_take_one_image_at_a_time(own):
    code = own(
        """
        def f(x, kernel):
            seen.append(x.shape)
            return right(x[None], kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)[0]
        """,
        layout="CHW",
    )
    one = replace(PLAIN, batch_size=1)
    assert run(code, one) == (3, 9, 8)
    assert check(Case(code, one, Pass.FORWARD, 1, 0)).verdict == "agrees"
    assert code.unsupported(PLAIN, Pass.FORWARD).why == "its layout has no axis for batch"


# How code is found


def test_modules_are_found_without_being_run(tmp_path, monkeypatch):
    package = tmp_path / "loud"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('was run')")
    (package / "inner.py").write_text("raise RuntimeError('was run')")
    monkeypatch.setattr(description, "STARTED_IN", tmp_path)
    assert OwnCode.of("loud.inner:f").source == package / "inner.py"
    assert OwnCode.of("loud:f").source == package / "__init__.py"
    assert OwnCode.of("loud.other:f").source is None
    assert "loud" not in sys.modules


def test_a_copy_has_state_of_its_own(own):
    code = own("def f(x, kernel):\n    seen.append(1)\n    return np.zeros((2, 4, 7, 7))")
    run(code, PLAIN)
    other = code.fresh().prepare(PLAIN, Pass.FORWARD, 1)
    other.load(operands.floats(PLAIN, Pass.FORWARD, 0))
    other.run()
    assert other._function.__globals__["seen"] == [1]


# What code says


def test_lines_are_kept_once_and_counted_when_there_are_too_many():
    with listening() as said:
        for i in [*range(30), *range(30)]:
            print("line", i)
        print("x" * 1000, end="")
    assert len(said.lines) == 20
    assert said.lines[0].endswith("printed: line 0")
    assert said.left_out == 2 * 10 + 1


@pytest.mark.parametrize("end", ["\n", ""])
def test_printing_much_costs_little(end):
    start = time.process_time()
    with listening() as said:
        for i in range(200_000):
            print("line", i, end=end)
    assert time.process_time() - start < 4
    assert "printed: line 0" in said.lines[0]


# What code may not do


def test_writing_into_operands_is_wrong_even_if_the_result_is_right(own):
    code = own("""
        def f(x, kernel):
            result = right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
            x[0] = 0
            return result
    """)
    found = check(Case(code, PLAIN, Pass.FORWARD, 1, 0))
    assert found.verdict == "wrong"


def test_code_may_protect_its_operands(own):
    code = own("""
        def f(x, kernel):
            x.flags.writeable = False
            return right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    """)
    assert check(Case(code, PLAIN, Pass.FORWARD, 1, 0)).verdict == "agrees"


def test_memory_that_was_never_written_to_is_found(own):
    code = own("""
        def f(x, kernel):
            full = right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
            result = np.empty_like(full)
            result[:, :, :-1] = full[:, :, :-1]
            return result
    """)
    found = check(Case(code, PLAIN, Pass.FORWARD, 1, 0))
    assert found.verdict == "wrong"
    assert "never written" in found.diagnosis
    assert np.empty is not None
    assert np.empty.__name__ == "empty", "numpy must be as it was"


def test_code_that_remembers_arrays_by_their_identity_is_found_wrong(own):
    code = own("""
        known = {}
        def f(x, kernel):
            if id(x) not in known:
                known[id(x)] = right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
            return known[id(x)]
    """)
    assert check(Case(code, PLAIN, Pass.FORWARD, 1, 0)).verdict == "wrong"


@pytest.mark.parametrize("dtype", ["float16", "int32", "object"])
def test_results_of_other_types_are_wrong(own, dtype):
    code = own(f"""
        def f(x, kernel):
            return right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1).astype("{dtype}")
    """)
    assert check(Case(code, PLAIN, Pass.FORWARD, 1, 0)).verdict == "wrong"


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("out, {'cache': x}", "f returns a tuple of 2, expected one array of shape (2, 4, 7, 7), "),
        ("out, out", "f returns a tuple of 2, expected one array"),
        ("[out, x]", "f returns a list of 2, expected one array"),
        ("{'out': out}", "f returns a dict, expected one array"),
        ("(row for row in out)", "f returns a generator, expected one array"),
        ("None", "f returns None, expected one array"),
        ("out + 0.5j", "expected floats: imaginary parts are as large as 0.5, not zero"),
        ("out.astype(complex)", None),
        ("np.ma.masked_array(out)", None),
        ("np.asfortranarray(out)", None),
        ("out[::-1].copy()[::-1]", None),
        ("out.astype(object)", "f returns an array of dtype object, expected floats"),
        ("out[:, :, 1:]", "the result has shape (2, 4, 6, 7), expected (2, 4, 7, 7), that is ("),
        ("out.tolist()", None),
        ("tuple(out)", None),
    ],
)
def test_a_result_that_is_not_one_array_of_floats_is_wrong(own, returned, told):
    code = own(f"""
        def f(x, kernel):
            out = right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
            return {returned}
    """)
    found = check(Case(code, PLAIN, Pass.FORWARD, 1, 0))
    assert found.verdict == ("wrong" if told else "agrees")
    assert not told or told in found.diagnosis
    if told:
        diagnose(Case(code, PLAIN, Pass.FORWARD, 1, 0), Search())


def test_code_alone_has_a_module_of_its_own_that_goes_afterwards(own):
    code = own("""
        calls = []
        def f(x, kernel):
            calls.append(1)
            return right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1) * len(calls)
    """)
    before = [name for name in sys.modules if "__copy" in name]
    for _ in range(2):
        with code.alone() as alone:
            prepared = alone.prepare(PLAIN, Pass.FORWARD, 1)
            prepared.load(operands.floats(PLAIN, Pass.FORWARD, 0))
            first, second = (np.array(prepared.run()) for _ in range(2))
        np.testing.assert_allclose(second, 2 * first)
        assert [name for name in sys.modules if "__copy" in name] == before


def test_code_that_can_be_imported_only_once_is_used_as_it_is(own, monkeypatch):
    monkeypatch.setattr(sys, "was_imported", False, raising=False)
    code = own("""
        import sys
        if sys.was_imported:
            raise RuntimeError("I am here already")
        sys.was_imported = True
        def f(x, kernel):
            return right(x, kernel, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    """)
    code.prepare(PLAIN, Pass.FORWARD, 1)
    with code.alone() as alone:
        assert alone is code


def test_a_registry_knows_own_code_by_its_name():
    registry = REGISTRY.knowing(OwnCode("shortly", f"{USERS}:right"))
    assert registry.get("shortly").unsupported(PLAIN, Pass.FORWARD) is None
    assert registry.get("shortly").is_own
    assert not registry.get("im2col").is_own
    with pytest.raises(ImplementationError, match="there is no implementation 'shortly'"):
        REGISTRY.get("shortly")
    assert ROOT in USERS.parents
