"""Explain a wrong result: known mistakes, patterns, the smallest layer that fails."""
