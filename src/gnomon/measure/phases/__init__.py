"""Phases of irregular work: their times, what a cache would keep of their accesses, and what follows from both."""
