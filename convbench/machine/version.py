"""State the version of convbench, for the package itself and for the files that it writes."""

__version__ = "0.1.0"
"""Version of this package. `pyproject.toml` states the same."""
