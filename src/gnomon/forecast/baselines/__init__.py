"""Published ways to forecast a GPU, to compare ours with: what each takes from its source is in its own file.

`roofline` needs nothing. `linear-regression`, `habitat` and `neusight` are fitted when asked (`fitted.fit_baseline`) on
the rows that ours is fitted on, and never shipped. None states an interval. All are handed the same graphs, the same
bytes and FLOP and the same model of the host, so that a table of them compares how kernels are priced and nothing else.
"""
