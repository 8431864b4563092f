"""Manifests of other tools, read as data and turned into Gnomon's own, with a report of what became of every key."""
