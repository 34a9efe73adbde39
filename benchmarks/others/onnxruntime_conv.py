"""Compute the forward pass with ONNX Runtime's Conv on the CPU, as own code.

The name is `--impl benchmarks/others/onnxruntime_conv.py:OnnxRuntime`. ONNX Runtime and `onnx` are
imported when an object is made. The kernel is an input of the graph and not a constant, so that
what depends on its values is computed in each call, as in all other implementations.
"""

from __future__ import annotations

from typing import Any


class OnnxRuntime:
    layout = "NCHW"
    kernel_layout = "OIHW"

    def __init__(
        self,
        strides: Any,
        padding: Any,
        dilation_rate: Any,
        groups: int,
        use_bias: bool,
        dtype: str,
        threads: int,
    ) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        built = model(strides, padding, dilation_rate, groups, use_bias, dtype)
        self._session = onnxruntime.InferenceSession(
            built.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )

    def forward(self, x: Any, kernel: Any, bias: Any = None) -> Any:
        arrays = {"x": x, "kernel": kernel, **({} if bias is None else {"bias": bias})}
        return self._session.run(None, arrays)[0]


def model(
    strides: Any, padding: Any, dilation_rate: Any, groups: int, use_bias: bool, dtype: str
) -> Any:
    """Return an ONNX model of one Conv. Its inputs are `x`, `kernel` and, if used, `bias`."""
    from onnx import TensorProto, helper

    (top, bottom), (left, right) = padding
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    axes = {"x": 4, "kernel": 4, **({"bias": 1} if use_bias else {})}
    inputs = [helper.make_tensor_value_info(n, kind, [None] * rank) for n, rank in axes.items()]
    output = helper.make_tensor_value_info("y", kind, [None] * 4)
    convolution = helper.make_node(
        "Conv",
        list(axes),
        ["y"],
        strides=list(strides),
        pads=[top, left, bottom, right],
        dilations=list(dilation_rate),
        group=groups,
    )
    graph = helper.make_graph([convolution], "convolution", inputs, [output])
    # onnxruntime 1.15 and later read this version.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
