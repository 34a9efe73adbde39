"""Share what several NumPy algorithms are made of: blocks, columns, products, threads, memory."""
