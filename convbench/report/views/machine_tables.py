"""Report the machine: what it is, its measured peaks, what holds it back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from convbench.machine.description import Calibration, Machine, MachineDescription
from convbench.report.views import deviation_words, scale
from convbench.report.views.run_notes import blas_line, caution_note, versions_line
from convbench.report.views.table import Column, Fact, Note, Report, Row, Section, Table, text
from convbench.results.between_runs import LEAST_RUNS
from convbench.results.run_memory import Known

GIB, MIB, KIB = 2**30, 2**20, 2**10


def report(
    description: MachineDescription, known: Mapping[int, Known] = MappingProxyType({})
) -> Report:
    """Return the report of a machine. `known` says how much runs differ, by number of threads."""
    machine, software = description.machine, description.software
    measured = _measured(machine.calibration)
    return Report(
        title=f"convbench: machine {machine.hostname}",
        facts=(
            Fact("CPU", machine.cpu),
            Fact("cores", _cores(machine)),
            Fact("ISA", " ".join(machine.isa) or "not known"),
            Fact("caches", _caches(machine)),
            Fact("memory", f"{scale.significant(machine.memory_bytes / GIB)} GiB"),
            Fact("governor", machine.governor or "not shown by this system"),
            *(Fact("BLAS", blas_line(blas)) for blas in software.blas),
            Fact("versions", versions_line(software)),
            Fact("platform", machine.platform),
            Fact("variables", _variables(description.environment)),
            *(Fact("runs", _runs(threads, one)) for threads, one in known.items()),
        ),
        tables=(measured,),
        notes=(
            *map(caution_note, description.warnings),
            Note(
                "Per cent of peak: the share of SGEMM's or DGEMM's rate on as many threads.", "dim"
            ),
        ),
        flat=lambda: measured,
        document=description,
    )


def _cores(machine: Machine) -> str:
    quota = "" if machine.cpu_quota is None else f", quota of {machine.cpu_quota:g} CPUs"
    return f"{machine.cores}, {machine.logical_cpus} logical CPUs usable{quota}"


def _caches(machine: Machine) -> str:
    return (
        ", ".join(f"{name} {_size(size)}" for name, size in machine.caches.items()) or "not known"
    )


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // KIB} KiB"


def _variables(environment: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in environment.items()) or "none that matter"


def _runs(threads: int, known: Known) -> str:
    """Write `2 threads, 12 runs remembered: they differ in speedups by 2.1 % over Keras`."""
    runs = f"{scale.counted(threads, 'thread')}, {scale.counted(known.runs, 'run')} remembered: "
    if known.deviations:
        return runs + f"they differ in {deviation_words.differences(known.deviations)}"
    return runs + f"how much runs differ is not known yet, {LEAST_RUNS} runs of a suite are needed"


def _measured(calibration: Calibration | None) -> Table:
    rows: list[tuple[str, float, str]] = []
    if calibration is not None:
        for name, rates in (("SGEMM", calibration.sgemm), ("DGEMM", calibration.dgemm)):
            rows += [
                (f"{name}, {scale.counted(threads, 'thread')}", rate / 1e9, "GFLOP/s")
                for threads, rate in rates.items()
            ]
        rows += [
            ("copy, 1 thread, read + written", calibration.copy_bytes_per_s / GIB, "GiB/s"),
            ("small NumPy call", calibration.small_call_s * 1e9, "ns"),
            ("fresh page of 4 KiB", calibration.fresh_page_s * 1e9, "ns"),
        ]
    return Table(
        title="measured",
        columns=(
            Column("figure", "figure"),
            Column("value", "value", align="decimal"),
            Column("unit", "unit"),
        ),
        sections=(
            Section(
                tuple(
                    Row((text(name), text(scale.significant(value)), text(unit)))
                    for name, value, unit in rows
                )
            ),
        ),
    )
