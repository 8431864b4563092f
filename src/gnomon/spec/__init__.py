"""Manifests: what a task is exactly, who it refers to, what it needs, and the lock that pins it all. Runs no code."""
