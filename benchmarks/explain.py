"""Test whether `convbench profile` explains: three kinds of evidence, and their targets.

    python benchmarks/explain.py [gaps] [slow] [ladder] [-o FOLDER] > results/explain.txt
    python benchmarks/explain.py --from FOLDER > results/explain.txt

`gaps` profiles loop and naive-im2col against the fastest Keras, in every mnist layer and pass. The
product of all factors but the unexplained one should be within 1.25 times of the gap. `slow`
profiles a fast implementation into which exactly one slowness was put. The largest cause should be
the true one, and its factor the time of slow over fast. `ladder` compares what following the advice
is predicted to bring with what the next step takes. Each profile is one `convbench profile`, in
processes of its own, without the variables that pin BLAS kernels. Nothing else may run on the
machine meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kernels import PINS

from convbench.problem.layer import Pass
from convbench.profile.ladder import RUNGS
from convbench.suites.file import read_suite

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "explain"
SLOW = ROOT / "benchmarks" / "slow"
PARTS = ("gaps", "slow", "ladder")

WITHIN = 1.25
RIGHT_CAUSES = 0.9
RIGHT_STEPS = 0.8
LONGEST_S = 60.0
KERNELS = {"Haswell": "OPENBLAS_CORETYPE", "Nehalem": "OPENBLAS_CORETYPE"}

Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--from", dest="from_", type=Path, metavar="FOLDER")
    parser.add_argument("-o", dest="folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    folder = options.from_ or options.folder
    parts = options.parts or PARTS
    bench = Bench(folder, options.effort, measure=options.from_ is None)
    if "gaps" in parts:
        gaps(bench)
    if "slow" in parts:
        slow(bench)
    if "ladder" in parts:
        ladder(bench)
    if bench.seconds:
        longest = max(bench.seconds, key=bench.seconds.__getitem__)
        print(
            f"\nOne cell took {bench.seconds[longest]:.0f} s at most ({longest}), "
            f"{LONGEST_S:.0f} s are allowed: {_met(bench.seconds[longest] <= LONGEST_S)}"
        )


class Bench:
    """A source of profiles: it runs `convbench profile`, or reads what that command saved."""

    def __init__(self, folder: Path, effort: str, measure: bool) -> None:
        self._folder, self._effort, self._measures = folder, effort, measure
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def profile(self, name: str, *arguments: str, **environment: str) -> Document | None:
        """Return the saved document, or None if the profile could not be made."""
        path = self._folder / f"{name}.json"
        if self._measures and not path.exists():
            command = [sys.executable, "-m", "convbench", "profile", *arguments, "-q"]
            command += ["--effort", self._effort, "-o", str(path)]
            unpinned = {k: v for k, v in os.environ.items() if k not in PINS} | environment
            began = time.monotonic()
            print(f"explain.py: {name}", file=sys.stderr, flush=True)
            done = subprocess.run(
                command, env=unpinned, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if not path.exists():
                print(f"{name}: {done.stderr.strip()}")
                return None
            found = json.loads(path.read_text())
            found["took_s"] = time.monotonic() - began
            path.write_text(json.dumps(found))
        if not path.exists():
            return None
        document: Document = json.loads(path.read_text())
        self.seconds[name] = document.get("took_s", 0.0)
        return document


def gaps(bench: Bench) -> None:
    print("Gaps: the product of the factors without `unexplained` against the measured gap")
    print(f"{'cell':44} {'gap':>9} {'explained':>9} {'unexplained':>11}")
    misses = cells = 0
    for name in ("loop", "naive-im2col"):
        for layer in read_suite("mnist").layers:
            for pass_ in Pass:
                cell = f"{name} {layer.name} {pass_}"
                found = bench.profile(
                    cell.replace(" ", "-"),
                    *("mnist", "--impl", name, "--layer", layer.name, "--pass", pass_),
                )
                cells += 1
                if found is None:
                    misses += 1
                    continue
                gap, unexplained = found["headline"]["ratio"], found["unexplained"]
                is_within = 1 / WITHIN <= unexplained <= WITHIN
                misses += not is_within
                print(
                    f"{cell:44} {gap:9.3g} {gap / unexplained:9.3g} {unexplained:11.3f}"
                    f"{'' if is_within else '  MISSED'}"
                )
    print(f"{cells - misses} of {cells} within {WITHIN} times: {_met(misses == 0)}\n")


def slow(bench: Bench) -> None:
    sys.path.insert(0, str(SLOW))
    from slownesses import CAUSES

    print("Slownesses: the largest factor of the waterfall, and its cause")
    print(f"{'slowness':26} {'true cause':24} {'found':24} {'true':>7} {'found':>7}")
    file = str(SLOW / "slownesses.py")
    rows = []
    for name, cause in CAUSES.items():
        layer = "small" if name == "InLongDouble" else "point"
        found = bench.profile(
            f"slow-{name}",
            *(str(SLOW / "slow.yaml"), "--layer", layer),
            *("--impl", f"{file}:{name}", "--versus", f"{file}:Fast"),
            *("--threads", "2" if cause == "threads" else "1"),
        )
        if found is not None:
            rows.append((name, cause, found, found["headline"]["ratio"]))
    native = bench.profile("slow-native", *_fast(file))
    for kernels, variable in KERNELS.items():
        found = bench.profile(f"slow-{kernels}", *_fast(file), **{variable: kernels})
        if found is not None and native is not None:
            true = found["headline"]["time_s"] / native["headline"]["time_s"]
            rows.append((f"{kernels} kernels", "BLAS kernels", found, true))
    right = near = 0
    for name, cause, found, true in rows:
        largest = max(found["waterfall"], key=lambda step: step["factor"])
        factor = next(s["factor"] for s in found["waterfall"] if s["cause"] == cause)
        is_right = largest["cause"] == cause
        is_near = 1 / WITHIN <= factor / true <= WITHIN
        right, near = right + is_right, near + is_near
        print(
            f"{name:26} {cause:24} {largest['cause']:24} {true:7.3g} {factor:7.3g}"
            f"{'' if is_right else '  WRONG CAUSE'}{'' if is_near else '  FAR'}"
        )
    print(f"{right} of {len(rows)} causes right: {_met(right >= RIGHT_CAUSES * len(rows))}")
    print(f"{near} of {len(rows)} factors within {WITHIN} times: {_met(near == len(rows))}\n")


def _fast(file: str) -> tuple[str, ...]:
    """Return options to profile the fast code against `im2col`, for what the environment slows."""
    words = (str(SLOW / "slow.yaml"), "--layer", "point", "--threads", "1")
    return *words, "--impl", f"{file}:Fast", "--versus", "im2col"


def ladder(bench: Bench) -> None:
    print("The ladder: what is predicted for the change that the next step makes")
    print(f"{'step':16} {'first advice':24} {'next step':16} {'predicted ms':>22} {'took ms':>8}")
    within = first = steps = silent = 0
    for rung, following in itertools.pairwise(RUNGS):
        found = bench.profile(
            f"ladder-{rung.name}",
            *("ladder", "--impl", rung.own_code.code, "--versus", following.own_code.code),
        )
        if found is None:
            continue
        steps += 1
        measured = found["headline"]["versus_s"]
        causes = {advice["cause"]: advice["predicted_s"] for advice in found["advice"]}
        time_s = found["headline"]["time_s"]
        # Without advice, the profile predicts that the time stays.
        is_silent = following.cause not in causes
        silent += is_silent
        low, high = causes.get(following.cause, (time_s / WITHIN, time_s * WITHIN))
        is_within = low <= measured <= high
        within += is_within
        top = next(iter(causes), "-")
        first += top == following.cause
        print(
            f"{rung.name:16} {top:24} {following.name:16} {low * 1e3:10.3f} to {high * 1e3:8.3f} "
            f"{measured * 1e3:8.3f}{'' if is_within else '  MISSED'}"
            f"{'  (not advised)' if is_silent else ''}"
        )
    print(f"{silent} of {steps} are not advised: the prediction is that the time stays")
    print(f"{first} of {steps} steps are the first advice at the step before")
    print(f"{within} of {steps} predictions hold: {_met(within >= RIGHT_STEPS * steps)}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
