"""Compute convolutions with Keras Conv2D: eagerly, as a graph, and compiled by XLA."""
