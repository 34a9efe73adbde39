"""Why is it slower, and what would help: a cell taken apart by experiments, and in words."""
