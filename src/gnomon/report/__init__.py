"""Stored records as something to read: one HTML page, the terminal, a Perfetto trace. No torch in here."""
