"""Hold every way to compute a pass: contract.py says what one is, registry.py lists them."""
