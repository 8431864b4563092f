"""A device that the catalogue does not know: its data sheet as YAML, used like any other."""

from pathlib import Path

import torch
from torch import nn

import gnomon

SHEET = """
name: Sundial One
vendor: example
kind: gpu
architecture: dial
peak_flop_s:
  float32: {value: 20e12, source: brochure}
  float16: {value: 160e12, source: brochure}
memory_bytes: {value: 24e9, source: brochure}
memory_bandwidth_b_s: {value: 900e9, source: brochure}
units: {value: 64, source: brochure}
sources:
  brochure: "Sundial One product brief, made up for this example"
"""

path = Path("sundial-one.yaml")
path.write_text(SHEET)
layer = nn.Linear(4096, 4096)
graph = gnomon.capture(layer, {"input": torch.zeros(2048, 4096)}, name="linear")
f = gnomon.forecast(graph, gnomon.device(str(path)))
print(f"{f.device}: {1e3 * f.total.value_s:.2f} ms, {f.mfu:.0%} of its peak, bound by {f.bound}")
