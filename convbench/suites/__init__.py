"""Describe what is to be measured: layers, implementations, passes, and rules of a gate."""
