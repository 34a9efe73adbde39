"""Whether a result is right: the oracle, the bound, the verdict."""
