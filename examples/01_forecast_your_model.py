"""Any module, forecast on hardware that is not here: capture its operators once, price them on each device."""

import torch
from torch import nn

import gnomon

model = nn.TransformerEncoder(nn.TransformerEncoderLayer(512, 8, batch_first=True), num_layers=4)
graph = gnomon.capture(model, {"src": torch.zeros(8, 256, 512)}, name="encoder")
print(f"{graph.flop / 1e9:.1f} GFLOP, {graph.parameters / 1e6:.1f} million parameters, {len(graph.ops)} operators")

for name in ("T4", "A100-80GB-SXM", "H100-SXM"):
    for dtype in ("float32", "float16"):
        f = gnomon.forecast(graph, gnomon.device(name), dtype=dtype)
        low, mid, high = (1e3 * s for s in (f.total.low_s, f.total.value_s, f.total.high_s))
        print(f"{f.device:24} {dtype:8} {mid:7.2f} ms [{low:.2f}, {high:.2f}]  bound by {f.bound}")
