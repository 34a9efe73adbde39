"""Compute convolutions with NumPy, one algorithm a file."""
