"""Run convbench commands, each in a fork of one process that has imported everything already.

A command is a process of its own, with its own folder, environment, descriptors and exit code, as
if it had been started from a shell. It differs in two ways: it saves half a second of imports, and
its measurements are short. Each process of the tests starts one such server (see tests/cli.py). A
request is JSON and three descriptors.
"""

import functools
import json
import os
import socket
import sys
import traceback
from dataclasses import replace
from importlib import import_module
from pathlib import Path

COMMANDS = (
    "check",
    "diff",
    "export",
    "gate",
    "import_",
    "machine",
    "measuring",
    "merge",
    "noise",
    "profile",
    "run",
    "schema",
    "show",
    "train",
)
USED_BY_COMMANDS = (
    "convbench.compare.figures",
    "convbench.gate",
    "convbench.importers",
    "convbench.noise.file",
    "convbench.report.formats.csv_",
    "convbench.report.formats.json_",
    "convbench.report.formats.markdown",
    "convbench.report.formats.terminal",
    "convbench.report.views.check_tables",
    "convbench.report.views.diff_tables",
    "convbench.report.views.gate_tables",
    "convbench.report.views.machine_tables",
    "convbench.report.views.noise_tables",
    "convbench.report.views.run_tables",
    "convbench.results.file",
    "convbench.results.run_memory_file",
    "convbench.schedule",
    "convbench.suites.file",
    "convbench.training.file",
)


def main() -> None:
    for name in (*(f"convbench.cli.{command}" for command in COMMANDS), *USED_BY_COMMANDS):
        import_module(name)
    _hurry()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while True:
            request, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            if not request:
                return
            asked = json.loads(request)
            child = os.fork()
            if child == 0:
                connection.close()
                _run(asked, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            connection.sendall(json.dumps(child).encode() + b"\n")
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            connection.sendall(json.dumps(code).encode() + b"\n")


def _hurry() -> None:
    """Make measurements short: tests look at how figures are used, not at the figures."""
    from convbench.schedule import calibrating
    from convbench.schedule.effort import EFFORTS

    calibrating.neighbour_load = functools.partial(calibrating.neighbour_load, seconds=0.05)
    for name, effort in EFFORTS.items():
        EFFORTS[name] = replace(effort, calibration_s=0.1, rss_s=0.05, wake_s=0.02)


def _run(asked: dict, descriptors: list[int]) -> None:
    """Become the command; never return."""
    code = 1
    try:
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.path[0] = asked["cwd"]  # as `python -m` sets it
        sys.argv = ["convbench", *asked["arguments"]]
        for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
            encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
            errors = errors or ("backslashreplace" if name == "stderr" else "strict")
            stream = open(number, mode, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        from convbench import cli
        from convbench.own_code import description

        description.STARTED_IN = Path.cwd()
        cli.main()
        code = 0
    except SystemExit as error:
        code = _exit_code(error.code)
    except BaseException:  # noqa: BLE001 - Python, too, shows what nobody caught
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            code = code or 120  # the exit code of Python itself
        os._exit(code)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0)
    print(code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
