"""Operators of our own: one folder each, with a readable definition (`reference.py`) and faster twins of it."""
