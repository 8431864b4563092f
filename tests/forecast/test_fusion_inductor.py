"""Fused graphs beside what TorchInductor generates for the same models on this CPU."""

import re

import pytest
import torch
from torch import nn

from gnomon.forecast.fusion import fuse
from gnomon.workload.capture import capture

LIBRARY = ("matmul", "convolution", "attention")


class Block(nn.Module):
    """A transformer's layer with the pieces written out."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 8, -1)
        x = x + self.out(weights @ v)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def residual_net():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.n, self.m = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x):
            y = torch.relu(self.n(self.a(x)))
            return torch.relu(x + self.m(self.b(y))).mean((2, 3))

    return Net()


def gated():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = (nn.Linear(a, b) for a, b in ((64, 256), (64, 256), (256, 64)))

        def forward(self, x):
            root = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            return x + self.down(nn.functional.silu(self.gate(root)) * self.up(root))

    return Net()


CASES = {"block": (Block, (4, 16, 64)), "residual": (residual_net, (2, 8, 16, 16)), "gated": (gated, (32, 64))}


def kernels(model, example):
    """Names of the kernels that Inductor's generated code calls, library calls apart."""
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    with torch.no_grad(), torch._inductor.config.patch({"cpp_wrapper": False}):
        _, (code,) = run_and_get_code(torch.compile(model), example)
    return re.findall(r"^\s+(cpp_fused_\w+)\(", code, re.MULTILINE)


@pytest.mark.compile
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CASES)
def test_as_many_kernels_as_inductor_generates_within_one(name):
    build, shape = CASES[name]
    model, example = build().eval(), torch.randn(*shape)
    fused = fuse(capture(model, example, name=name))
    ours = sum(op.category not in LIBRARY for op in fused.ops)
    assert abs(ours - len(kernels(model, example))) <= 1
