"""Read a network from YAML: find the file, check it, raise all of its problems together."""

from __future__ import annotations

from pathlib import Path

from convbench.suites.file import read_document
from convbench.training.file.document import NETWORK, network_schema
from convbench.training.file.network import network
from convbench.training.network import Network

__all__ = ["network_schema", "read_network"]


def read_network(target: str | Path) -> Network:
    """Return the network of a file, or the shipped network of this name. A file is preferred.

    Raises SuiteError with every problem of the file, one a line, each with its line and column.
    """
    path, document = read_document(target, NETWORK)
    return network(document, path)
