"""Tell whether a result is right and, where it is not, why."""
