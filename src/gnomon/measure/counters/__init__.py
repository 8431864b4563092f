"""Counters below the clocks: the processor's and the kernel's own (perf), and exact instruction counts (valgrind)."""
