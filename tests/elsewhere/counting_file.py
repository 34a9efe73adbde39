"""The YAML file of the add-on in counting.py: what one holds, as messages and the schema say it."""

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from convbench.suites.file.document import STRICT, TOP, Kind, Words


@with_config(STRICT)
class TallyDocument(TypedDict):
    numbers: list[int]


def schema():
    return {**TALLY.model.json_schema(), "title": "a tally"}


TALLY = Kind(
    "tally",
    Words(
        "write the numbers out",
        expected={"tally": "a mapping with numbers", "numbers": "a list of integers"},
    ),
    TypeAdapter(TallyDocument),
    {TOP: ("numbers",)},
    places={"layers": ()},
    depths={"numbers": 1},
    command="convbench count",
    schema=schema,
)
