"""convbench: is a Python convolution right, how much slower than Keras Conv2D is it, and why."""

__version__ = "0.1.0"
