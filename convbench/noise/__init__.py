"""Try the gate itself on pairs of arms whose difference is known."""
