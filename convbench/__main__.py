"""`python -m convbench` is `convbench`."""

from convbench.cli import main

main()
