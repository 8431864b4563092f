"""Measuring a task on this machine: isolated sessions, levels, clocks, and what tracing itself costs."""
