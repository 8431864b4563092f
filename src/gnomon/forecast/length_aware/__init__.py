"""Length-aware pipelines: cut an encoder into stages for the average length, and simulate uneven sequences in them."""

from gnomon.forecast.length_aware.allocate import Stage, allocate, by_name
from gnomon.forecast.length_aware.arrangements import Row, Setting, draw_lengths, run_all, summary
from gnomon.forecast.length_aware.operators import Layer, Operator, chain, encoder
from gnomon.forecast.length_aware.pipeline import PipelineSim, Run, longest_first

__all__ = [
    "Layer",
    "Operator",
    "PipelineSim",
    "Row",
    "Run",
    "Setting",
    "Stage",
    "allocate",
    "by_name",
    "chain",
    "draw_lengths",
    "encoder",
    "longest_first",
    "run_all",
    "summary",
]
