"""Faulty convolutions, each with a known cause that the diagnosis has to find."""
