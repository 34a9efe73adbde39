"""Faulty convolutions, each with a known cause: what a diagnosis has to find."""
