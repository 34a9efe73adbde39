"""Run beside a kernel: the clock, the probes, the memory meters, and the worker process."""
