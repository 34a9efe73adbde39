"""Right convolutions as people write them, in many styles: none may ever be called wrong."""
