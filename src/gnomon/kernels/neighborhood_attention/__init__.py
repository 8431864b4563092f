"""Neighborhood attention on grids of one to three axes."""
