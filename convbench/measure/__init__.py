"""What runs beside a kernel: the timer, the memory meter, and the worker process."""
