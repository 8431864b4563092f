"""Tasks on sequences of symbols."""
