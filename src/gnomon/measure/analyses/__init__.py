"""Answers to standard questions about a measured task, each a pure function of stored records."""
