"""Start TensorFlow with Keras on the CPU, and cap its threads.

TensorFlow is imported inside functions, because its import takes seconds and hundreds of MB.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from convbench.errors import ImplementationError
from convbench.machine.cautions import unmeasured, unset
from convbench.machine.description import Caution
from convbench.runtimes.contract import Meters, Runtime
from convbench.runtimes.numpy import cap_blas

VARIABLES = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
"""Variables of a worker: use no GPU, run Keras on TensorFlow."""

DEFAULTS = {"TF_CPP_MIN_LOG_LEVEL": "2"}
"""Variables of a worker unless the caller sets them: write fewer notes to stderr."""

METER_VARIABLES = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}
"""Variables that let meters see the bytes of tensors. Without them, TensorFlow's CPU allocator
hands out parts of its own pool, and one Conv2D shows 30 KB instead of 1,210 KB (measured)."""

ONE_THREAD = r"xla_cpu_multi_thread_eigen=(false|0)|intra_op_parallelism_threads=1\b"
"""Flags of XLA that keep it to one thread, as a regular expression."""

SLACK_BYTES = 32 * 1024
"""Most bytes of bookkeeping that an eager operation may allocate beside its result."""

_started: int | None = None
"""Number of TensorFlow's threads in this process, or None before TensorFlow is started."""


@dataclass(frozen=True)
class TensorFlow(Runtime):
    """TensorFlow and Keras. Equally many threads work within an operation and among operations."""

    name = "tensorflow"
    module = "tensorflow"
    packages: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tensorflow": ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"),
        "keras": ("keras", "keras-nightly"),
    }
    install = "pip install tensorflow"
    import_s = 4.0
    relevant_variables = (
        *("TF_?*", "XLA_?*", "KERAS_?*", "ONEDNN_?*", "DNNL_?*", "CUDA_VISIBLE_DEVICES"),
    )

    pins: ClassVar[Mapping[str, str]] = {
        "ONEDNN_MAX_CPU_ISA": "limits oneDNN to {} (this affects TensorFlow only)",
        "DNNL_MAX_CPU_ISA": "limits oneDNN to {} (this affects TensorFlow only)",
    }

    def cautions(self, environ: Mapping[str, str]) -> Iterator[Caution]:
        yield from super().cautions(environ)
        name = "TF_ENABLE_ONEDNN_OPTS"
        if environ.get(name, "").lower() in ("0", "false"):
            what = f"{name}=0 turns oneDNN's kernels off (this affects TensorFlow only)"
            yield unmeasured(what, unset([name]))
        flags = environ.get("XLA_FLAGS", "")
        if re.search(ONE_THREAD, flags):
            what = f"XLA_FLAGS={flags} keeps XLA to one thread (this affects TensorFlow only)"
            yield unmeasured(what, "remove that flag from XLA_FLAGS")

    def variables(self, threads: int) -> Mapping[str, str]:
        return VARIABLES

    def default_variables(self) -> Mapping[str, str]:
        return DEFAULTS

    def start(self, threads: int) -> None:
        cap_blas(threads)
        start(threads)

    def meters(self) -> Meters:
        return Meters(("memray",), METER_VARIABLES, SLACK_BYTES, packs_in_numpys_blas=False)

    def allocation(self, nbytes: int) -> Callable[[], object]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            zeros = tf.zeros(nbytes // 4)

        def run() -> object:
            with tf.device("CPU:0"):
                return tf.math.negative(zeros)

        return run


def start(threads: int) -> None:
    """Set TensorFlow up in this process: no GPU, `threads` threads within and among operations.

    Call this before anything else of TensorFlow. A second call with the same number does nothing.
    Raises ImplementationError if TensorFlow already runs with another number of threads, or if
    Keras runs on another backend.
    """
    global _started
    if _started == threads:
        return
    if _started is not None:
        raise ImplementationError(
            f"TensorFlow runs with {_started} threads in this process and cannot change to "
            f"{threads}",
            hint="measure each number of threads in a process of its own",
        )
    os.environ["KERAS_BACKEND"] = VARIABLES["KERAS_BACKEND"]
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with _without("sklearn"):
        import keras
        import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise ImplementationError(
            f"Keras runs on {keras.backend.backend()} in this process, not on TensorFlow",
            hint="import Keras after convbench, or set KERAS_BACKEND=tensorflow",
        )
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ImplementationError(
            f"TensorFlow is already in use in this process and cannot be set to {threads} "
            f"threads: {error}",
            hint="call start before anything else of TensorFlow",
        ) from error
    _started = threads


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Make an optional package look as if it were not installed, unless it is imported already.

    Keras imports scikit-learn, if it is there, for wrappers that convbench does not use. That
    takes 0.6 of 3.3 s, and loads SciPy's BLAS and one more OpenMP into the process.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
