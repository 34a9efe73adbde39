"""Know the machine: what it is, its measured peaks, its caches, and what holds it back."""
