"""One file per version of the store: v<NNNN>_<what_it_does>.py, in a straight line."""
