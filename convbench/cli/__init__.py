"""Offer the command line, one file a command. `--help` imports nothing heavy."""

from __future__ import annotations

from types import FunctionType

import typer

from convbench import addons
from convbench.cli import (
    check,
    diff,
    export,
    gate,
    import_,
    machine,
    merge,
    noise,
    run,
    schema,
    show,
)
from convbench.cli.console import Traceback

app = typer.Typer(
    name="convbench",
    help="Is your Python convolution right, how much slower than Keras Conv2D is it, and why?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    traceback: bool = typer.Option(
        False, "--traceback", help="Show Python's traceback of an error, for a bug report."
    ),
) -> None:
    Traceback.wanted = traceback
    if version:
        from convbench.machine.version import __version__

        typer.echo(f"convbench {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command("run")(run.run)
for _name, _add_on in addons.ADD_ONS.items():
    app.command(_name)(addons.found(_add_on.command, FunctionType))
app.command("check")(check.check)
app.command("show")(show.show)
app.command("diff")(diff.diff)
app.command("gate")(gate.gate)
app.command("noise")(noise.noise)
app.command("merge")(merge.merge)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("machine")(machine.machine)
app.command("schema")(schema.schema)


def main() -> None:
    app(prog_name="convbench")
