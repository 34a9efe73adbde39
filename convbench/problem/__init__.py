"""Describe a convolution: the shapes of a layer, its operands, and how far floats may be off."""
