"""Train a small network on any implementation of convolution, beside Keras. (An add-on.)"""
