"""Traces that other tools recorded: read, checked, put into our levels. No torch.

read: a file to a `Trace`. chrome, otlp: one format each. source: bytes to JSON, cut files included. nesting: parents
from times. damage: what is refused, and what a lenient reader tells instead.
"""
