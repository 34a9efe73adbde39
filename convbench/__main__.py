"""Run the command line: `python -m convbench` does the same as `convbench`."""

from convbench.cli import main

main()
