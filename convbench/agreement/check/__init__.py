"""Decide whether a result is right: the oracle, the bound on rounding, the verdict."""
