"""Find people's own code, understand how it is called, call it, and keep what it says."""
