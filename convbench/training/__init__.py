"""Training a small network on any implementation of convolution, held against Keras."""
