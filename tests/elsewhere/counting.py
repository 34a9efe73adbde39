"""The command of an add-on as somebody would add it: nothing of convbench knows it.

It adds up the numbers of a YAML file, `{numbers: [1, 2]}`, and saves the total.
"""

import json
from pathlib import Path

from convbench.cli.console import guarded
from convbench.cli.show import FormatName, print_report


@guarded
def count(target: str, output: Path) -> None:
    """Add up the numbers of a tally."""
    from convbench.suites.file import read_document
    from tests.elsewhere.counting_file import TALLY

    _, document = read_document(target, TALLY)
    document.raise_problems()
    part = {"counting": {"total": sum(document.value["numbers"])}}
    output.write_text(json.dumps({"convbench": part}))
    print_report(show(output), FormatName.TABLE, None)


def show(path):
    """The report of what `count` saved."""
    from convbench.report.views.table import Column, Kind, Report, Row, Section, Table, Value
    from convbench.results.file import read_json

    part = read_json(path)["convbench"]["counting"]
    row = Row((Value(Kind.NUMBER, part["total"]),))
    table = Table("Counted", (Column("total", "total"),), (Section((row,)),))
    return Report("convbench count", (), (table,), (), lambda: table, document=part)
