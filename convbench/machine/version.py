"""State the version of convbench, for the package itself and for what it writes into files."""

__version__ = "0.1.0"
"""Version of this package, as `pyproject.toml` has it too."""
