"""Know the machine and its system: what it is, its peaks, its caches, and what holds it back."""
