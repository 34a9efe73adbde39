"""Time one cell's call in a plain loop, in this process alone, and print the samples as JSON.

    python -P benchmarks/timeit_loop.py SUITE LAYER PASS IMPLEMENTATION THREADS

The loop makes the same call as the harness, and shares nothing of how the harness times it. `-P`
keeps this folder off the import path, since its timeit.py is not the standard library's.
"""

import gc
import json
import sys
import time

WARM_UP_S = 0.3
SAMPLE_S = 0.01
SAMPLES = 60
LEAST = 10
LONGEST_S = 3.0
"""Seconds after which a loop of slow calls ends with fewer samples, but at least LEAST."""


def main(suite: str, layer: str, pass_: str, implementation: str, threads: int) -> None:
    import numpy as np
    import threadpoolctl

    from convbench.implementations.registry import REGISTRY
    from convbench.problem import operands
    from convbench.problem.layer import Pass
    from convbench.suites.file import read_suite

    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)
    threadpoolctl.threadpool_limits(threads, user_api="blas")
    cell = next(one for one in read_suite(suite).layers if one.name == layer), Pass(pass_)
    code = REGISTRY.get(implementation)
    if code.unsupported(*cell):
        print("null")
        return
    prepared = code.prepare(*cell, threads)
    prepared.load(operands.floats(*cell, 0))
    run, now = prepared.run, time.perf_counter
    gc.disable()  # as timeit does
    made, start = 0, now()
    while made < 2 or now() - start < WARM_UP_S:
        run()
        made += 1
    call_s = (now() - start) / made
    calls = max(1, round(SAMPLE_S / call_s))
    samples = []
    for _ in range(max(LEAST, min(SAMPLES, round(LONGEST_S / (calls * call_s))))):
        start = now()
        for _ in range(calls):
            run()
        samples.append((now() - start) / calls)
    print(json.dumps(samples))


if __name__ == "__main__":
    main(*sys.argv[1:5], threads=int(sys.argv[5]))
