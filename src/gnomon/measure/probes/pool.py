"""The kernels that a calibration can choose from: every class of operator, over sizes a factor of 4 to 16 apart.

Sizes are powers of two, chosen to span what models use; no shape is that of a particular model.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_aten = torch.ops.aten
_PERIOD = 2**18


@dataclass(frozen=True, slots=True)
class Input:
    """A float32 tensor of both signs, or int64 indices below `below`. swapped: two axes that the call exchanges first.

    positive: for operators that are not defined below zero.
    """

    shape: tuple[int, ...]
    below: int = 0
    swapped: tuple[int, int] | None = None
    positive: bool = False

    def make(self, device: str) -> Tensor:
        """With random values: branches of a kernel are then as hard to predict as in a model."""
        if self.below:
            return torch.randint(self.below, self.shape, device=device)
        count = math.prod(self.shape)
        values = torch.rand(min(count, _PERIOD), device=device) * 2 - (0 if self.positive else 1)
        if count > _PERIOD:  # drawing is slow: a long pattern repeated is as unpredictable
            values = values.repeat(-(-count // _PERIOD))[:count]
        return (values + 0.1 if self.positive else values).view(self.shape)

    def allocate(self) -> Tensor:
        """The same without values: enough to capture the operator."""
        return torch.empty(self.shape, dtype=torch.int64 if self.below else torch.float32)


@dataclass(frozen=True, slots=True)
class Probe:
    """One call of one operator. weights: indices of the inputs that a model reads from memory, not from a cache."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...]
    weights: tuple[int, ...] = ()

    def __call__(self, *values: Tensor) -> Any:
        """The operator on values of the inputs, after the views that exchange axes."""
        swaps = [one.swapped for one in self.inputs]
        return self.function(*(v if s is None else v.transpose(*s) for v, s in zip(values, swaps, strict=True)))


def pool(device: str = "cpu") -> dict[str, Probe]:
    """Name -> probe, of those that the device can run. The order does not matter: a calibration chooses."""
    streams = (_elementwise(), _copies(), _rows(), _out_of_order())
    parts = (_products(), _convolutions(), *streams, _images(), _gathers(), _attention())
    probes = {probe.name: probe for probe in itertools.chain(*parts)}
    if device != "cpu":  # the backward pass of attention is another operator there, with another signature
        probes = {name: probe for name, probe in probes.items() if not name.startswith("attention backward")}
    return probes


def _text(*sizes: int) -> str:
    return "x".join(str(size) for size in sizes)


def _products() -> Iterator[Probe]:
    faces = ((64, 64), (256, 256), (1024, 256), (256, 1024), (1024, 1024), (4096, 1024), (1024, 4096), (32, 1024))
    for m, (n, k) in itertools.product((1, 8, 32, 128, 512, 2048), faces):
        name = _text(m, n, k)
        weight = Input((n, k))
        yield Probe(f"linear {name}", F.linear, (Input((m, k)), weight, Input((n,))), weights=(1,))
        yield Probe(f"mm {name}", torch.mm, (Input((m, k)), Input((k, n))), weights=(1,))
        yield Probe(f"mm transposed right {name}", torch.mm, (Input((m, k)), Input((n, k), swapped=(0, 1))), (1,))
        if m > 8:
            yield Probe(f"mm transposed left {name}", torch.mm, (Input((m, n), swapped=(0, 1)), Input((m, k))))
    for batch, (m, n, k) in itertools.product(
        (8, 64, 256), ((32, 32, 32), (128, 128, 64), (128, 64, 128), (512, 512, 64), (512, 64, 512), (1, 512, 64))
    ):
        name = _text(batch, m, n, k)
        yield Probe(f"bmm {name}", torch.bmm, (Input((batch, m, k)), Input((batch, k, n))))
        swapped = Input((batch, n, k), swapped=(1, 2))
        yield Probe(f"bmm transposed {name}", torch.bmm, (Input((batch, m, k)), swapped))


def _convolutions() -> Iterator[Probe]:
    # batch, channels in and out, side of the image, window, stride, groups
    dense = [(b, c, c, s, 3, 1, 1) for b, (c, s) in itertools.product((1, 8), ((16, 128), (64, 64), (128, 32),
                                                                               (256, 16), (512, 8)))]  # fmt: skip
    wide = [(b, i, o, s, 3, 1, 1) for b, i, o, s in ((2, 32, 64, 64), (2, 256, 128, 32), (2, 128, 64, 64))]
    points = [(b, i, o, s, 1, 1, 1) for b, (i, o, s) in itertools.product((1, 8), (
        (32, 128, 64), (128, 32, 64), (64, 256, 32), (256, 64, 32), (512, 512, 8), (32, 192, 32), (192, 32, 32),
        (16, 96, 64), (1024, 256, 16), (256, 1024, 16)))]  # fmt: skip
    strided = [(b, i, o, s, k, 2, 1) for b, (i, o, s, k) in itertools.product((1, 8), (
        (64, 128, 64, 3), (128, 256, 32, 3), (256, 512, 16, 3), (64, 128, 64, 1), (256, 512, 32, 1), (3, 64, 128, 7),
        (3, 32, 128, 3)))]  # fmt: skip
    deep = [(b, c, c, s, 3, t, c) for b, t, (c, s) in itertools.product((1, 8), (1, 2), (
        (32, 128), (128, 64), (512, 16), (1024, 8)))]  # fmt: skip
    other = [(2, 3, 512, 128, 16, 16, 1), (2, 3, 256, 64, 4, 4, 1), (2, 64, 64, 64, 5, 1, 64),
             (2, 128, 128, 32, 3, 1, 32), (2, 256, 256, 16, 3, 1, 8), (2, 64, 64, 32, 7, 1, 64)]  # fmt: skip
    for b, i, o, s, k, t, g in itertools.chain(dense, wide, points, strided, deep, other):
        pad = 0 if k == t else k // 2
        name = f"{_text(b, i, o, s)} window {k} stride {t} groups {g}"
        out = (s + 2 * pad - k) // t + 1
        images, weight = Input((b, i, s, s)), Input((o, i // g, k, k))
        forward = functools.partial(F.conv2d, stride=t, padding=pad, groups=g)
        yield Probe(f"convolution {name}", forward, (images, weight), weights=(1,))
        mask = [i > 3, True, False]
        backward = functools.partial(_convolution_backward, stride=t, padding=pad, groups=g, mask=mask)
        yield Probe(f"convolution backward {name}", backward, (Input((b, o, out, out)), images, weight), weights=(2,))
    for b, i, o, s in ((2, 64, 32, 32), (2, 256, 128, 16)):
        up = functools.partial(F.conv_transpose2d, stride=2)
        yield Probe(f"transposed convolution {_text(b, i, o, s)}", up, (Input((b, i, s, s)), Input((i, o, 2, 2))), (1,))


def _convolution_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int, groups: int, mask: list[bool]
) -> Any:
    sizes = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0])
    return _aten.convolution_backward(gradient, images, weight, None, *sizes, groups, mask)


_LENGTHS = (2**12, 2**16, 2**18, 2**20, 2**22, 2**24)


def _elementwise() -> Iterator[Probe]:
    one: dict[str, Callable[..., Any]] = {
        "relu": torch.relu, "gelu": F.gelu, "gelu tanh": functools.partial(F.gelu, approximate="tanh"), "silu": F.silu,
        "tanh": torch.tanh, "sigmoid": torch.sigmoid, "exp": torch.exp, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
        "times number": lambda x: x * 0.5, "plus number": lambda x: x + 0.5, "square": lambda x: x.pow(2),
        "cube": lambda x: torch.pow(x, 3.0), "neg": torch.neg, "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
        "leaky relu": F.leaky_relu, "elu": F.elu, "hardswish": F.hardswish, "cos": torch.cos, "log": torch.log,
        "relu in place": torch.relu_, "times number in place": lambda x: x.mul_(0.999),
        "divided by number": lambda x: x / 3.0, "clamp": lambda x: x.clamp_min(0.1), "erf": torch.erf,
    }  # fmt: skip
    two: dict[str, Callable[..., Any]] = {
        "add": torch.add, "mul": torch.mul, "sub": torch.sub, "div": torch.div,
        "gelu backward": lambda g, x: _aten.gelu_backward(g, x),
        "gelu tanh backward": lambda g, x: _aten.gelu_backward(g, x, approximate="tanh"),
        "relu backward": lambda g, x: _aten.threshold_backward(g, x, 0),
        "silu backward": lambda g, x: _aten.silu_backward(g, x),
        "tanh backward": lambda g, x: _aten.tanh_backward(g, x),
        "sigmoid backward": lambda g, x: _aten.sigmoid_backward(g, x),
        "add in place": lambda x, y: x.add_(y, alpha=0.1), "lerp in place": lambda x, y: x.lerp_(y, 0.1),
    }  # fmt: skip
    three: dict[str, Callable[..., Any]] = {
        "addcmul in place": lambda x, y, z: x.addcmul_(y, z, value=0.001),
        "addcdiv in place": lambda x, y, z: x.addcdiv_(y, z, value=-0.001),
    }
    for functions, count in ((one, 1), (two, 2), (three, 3)):
        for (name, function), length in itertools.product(functions.items(), _LENGTHS):
            last = Input((length,), positive=name in ("sqrt", "rsqrt", "log", "div", "addcdiv in place"))
            yield Probe(f"{name} {length}", function, (*(Input((length,)),) * (count - 1), last))
    for rows, columns in ((64, 256), (512, 1024), (4096, 1024)):
        name = _text(rows, columns)
        yield Probe(f"add row {name}", torch.add, (Input((rows, columns)), Input((columns,))))
        yield Probe(f"mul row {name}", torch.mul, (Input((rows, columns)), Input((columns,))))
        yield Probe(f"mul column {name}", torch.mul, (Input((rows, columns)), Input((rows, 1))))
        yield Probe(f"compare {name}", torch.gt, (Input((rows, columns)), Input((rows, columns))))


def _copies() -> Iterator[Probe]:
    for length in _LENGTHS:
        yield Probe(f"clone {length}", torch.clone, (Input((length,)),))
        yield Probe(f"zeros like {length}", torch.zeros_like, (Input((length,)),))
        yield Probe(f"bernoulli {length}", lambda x: x.bernoulli_(0.9), (Input((length,)),))
    for b, r, c, d in ((1, 64, 8, 64), (4, 256, 16, 64), (4, 1024, 16, 64)):
        name = _text(b, r, c, d)
        yield Probe(f"contiguous heads {name}", torch.Tensor.contiguous, (Input((b, r, c, d), swapped=(1, 2)),))
    for rows, columns in ((128, 128), (1024, 512), (4096, 1024)):
        name = _text(rows, columns)
        yield Probe(f"contiguous transposed {name}", torch.Tensor.contiguous, (Input((rows, columns), swapped=(0, 1)),))
        pair = (Input((rows, columns)), Input((rows, columns)))
        yield Probe(f"cat columns {name}", lambda x, y: torch.cat((x, y), -1), pair)
        yield Probe(f"cat rows {name}", lambda x, y: torch.cat((x, y), 0), pair)


def _rows() -> Iterator[Probe]:
    for rows, columns in ((64, 64), (4096, 16), (65536, 16), (512, 256), (8192, 128), (512, 1024), (4096, 1024),
                          (64, 16384), (512, 16384)):  # fmt: skip
        name, x, row = _text(rows, columns), Input((rows, columns)), Input((columns,))
        column = Input((rows, 1), positive=True)
        norm = functools.partial(F.layer_norm, normalized_shape=(columns,))
        yield Probe(f"layer norm {name}", lambda x, w, b, f=norm: f(x, weight=w, bias=b), (x, row, row))
        yield Probe(f"layer norm backward {name}", functools.partial(_layer_norm_backward, columns=columns),
                    (x, x, column, column, row, row))  # fmt: skip
        for title, function in {
            "softmax": lambda x: torch.softmax(x, -1), "log softmax": lambda x: torch.log_softmax(x, -1),
            "safe softmax": lambda x: _aten._safe_softmax(x, -1), "sum of rows": lambda x: x.sum(-1),
            "sum of columns": lambda x: x.sum(0),
            "mean of rows": lambda x: x.mean(-1),
            "sum of all": lambda x: x.sum(), "greatest of rows": lambda x: x.amax(-1), "argmax": lambda x: x.argmax(-1),
            "var of rows": lambda x: x.var(-1), "top 8": lambda x: x.topk(8, -1),
        }.items():  # fmt: skip
            yield Probe(f"{title} {name}", function, (x,))
        backward = lambda g, y: _aten._softmax_backward_data(g, y, -1, torch.float32)  # noqa: E731
        yield Probe(f"softmax backward {name}", backward, (x, x))
        log_backward = lambda g, y: _aten._log_softmax_backward_data(g, y, -1, torch.float32)  # noqa: E731
        yield Probe(f"log softmax backward {name}", log_backward, (x, x))


def _out_of_order() -> Iterator[Probe]:
    for b, c, n in ((1, 64, 256), (4, 128, 1024), (8, 256, 1024)):
        name, swapped, row = _text(b, c, n), Input((b, c, n), swapped=(1, 2)), Input((c,))
        norm = functools.partial(F.layer_norm, normalized_shape=(c,))
        yield Probe(
            f"layer norm out of order {name}", lambda x, w, v, f=norm: f(x, weight=w, bias=v), (swapped, row, row)
        )
        yield Probe(f"softmax out of order {name}", lambda x: torch.softmax(x, -1), (swapped,))
        yield Probe(f"add of two orders {name}", torch.add, (Input((b, n, c)), swapped))
        yield Probe(f"mul of two orders {name}", torch.mul, (Input((b, n, c)), swapped))


def _layer_norm_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, deviation: Tensor, weight: Tensor, bias: Tensor, columns: int
) -> Any:
    return _aten.native_layer_norm_backward(gradient, x, [columns], mean, deviation, weight, bias, [True, True, True])


def _images() -> Iterator[Probe]:
    for b, c, s in ((1, 16, 32), (1, 64, 64), (8, 128, 16), (8, 64, 64), (8, 256, 32)):
        name, x, v = _text(b, c, s), Input((b, c, s, s)), Input((c,), positive=True)
        norm = lambda x, v, training: F.batch_norm(x, v, v, v, v, training)  # noqa: E731
        yield Probe(f"batch norm {name}", functools.partial(norm, training=False), (x, v))
        yield Probe(f"batch norm in training {name}", functools.partial(norm, training=True), (x, v))
        yield Probe(f"batch norm backward {name}", _batch_norm_backward, (x, x, v))
        yield Probe(f"group norm {name}", lambda x, v: F.group_norm(x, 8, v, v), (x, v))
        for title, function in {
            "max pool 2": lambda x: F.max_pool2d(x, 2), "max pool 3": lambda x: F.max_pool2d(x, 3, 2, 1),
            "average pool 2": lambda x: F.avg_pool2d(x, 2), "average pool all": lambda x: F.adaptive_avg_pool2d(x, 1),
            "average pool 3": lambda x: F.avg_pool2d(x, 3, 1, 1), "mean of images": lambda x: x.mean((2, 3)),
            "nearest": lambda x: F.interpolate(x, scale_factor=2),
            "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
            "channels last": lambda x: x.permute(0, 2, 3, 1).contiguous(),
            "cat channels": lambda x: torch.cat((x, x), 1), "sum over images": lambda x: x.sum((0, 2, 3)),
        }.items():  # fmt: skip
            yield Probe(f"{title} {name}", function, (x,))
        half = Input((b, c, s // 2, s // 2))
        places = Input((b, c, s // 2, s // 2), below=s * s)
        yield Probe(f"max pool 2 backward {name}", _max_pool_backward, (half, x, places))
        yield Probe(f"average pool 2 backward {name}", _average_pool_backward, (half, x))


def _batch_norm_backward(gradient: Tensor, x: Tensor, v: Tensor) -> Any:
    return _aten.native_batch_norm_backward(gradient, x, v, v, v, v, v, True, 1e-5, [True, True, True])


def _max_pool_backward(gradient: Tensor, x: Tensor, places: Tensor) -> Any:
    return _aten.max_pool2d_with_indices_backward(gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)


def _average_pool_backward(gradient: Tensor, x: Tensor) -> Any:
    return _aten.avg_pool2d_backward(gradient, x, [2, 2], [2, 2], [0, 0], False, True, None)


def _gathers() -> Iterator[Probe]:
    for rows, columns, taken in ((1024, 16, 4096), (4096, 64, 32768), (16384, 16, 131072), (32768, 256, 65536),
                                 (32768, 1024, 512), (1024, 1024, 512), (65536, 64, 262144)):  # fmt: skip
        name = _text(rows, columns, taken)
        table, index, source = Input((rows, columns)), Input((taken,), below=rows), Input((taken, columns))
        yield Probe(f"embedding {name}", lambda t, i: F.embedding(i, t), (table, index), (0,))
        yield Probe(f"index select {name}", lambda t, i: t.index_select(0, i), (table, index))
        yield Probe(f"index {name}", lambda t, i: t[i], (table, index))
        yield Probe(f"index add {name}", lambda t, i, s: t.index_add_(0, i, s), (table, index, source))
        yield Probe(f"index put {name}", lambda t, i, s: t.index_put_((i,), s, accumulate=True), (table, index, source))
        wide = Input((taken, columns), below=rows)
        yield Probe(f"scatter add {name}", lambda t, i, s: t.scatter_add_(0, i, s), (table, wide, source))
        yield Probe(f"gather {name}", lambda t, i: t.gather(0, i), (table, wide))
        yield Probe(f"embedding backward {name}", functools.partial(_embedding_backward, rows=rows), (source, index))
    for length, taken in ((16384, 131072), (65536, 524288)):
        name, index = _text(length, taken), Input((taken,), below=length)
        yield Probe(f"index add of numbers {name}", lambda t, i, s: t.index_add_(0, i, s),
                    (Input((length,)), index, Input((taken,))))  # fmt: skip
        yield Probe(f"index of numbers {name}", lambda t, i: t[i], (Input((length,)), index))


def _embedding_backward(gradient: Tensor, index: Tensor, rows: int) -> Any:
    return _aten.embedding_dense_backward(gradient, index, rows, -1, False)


def _attention() -> Iterator[Probe]:
    for b, h, tokens, d in ((1, 8, 64, 64), (1, 8, 512, 64), (8, 8, 128, 64), (8, 8, 512, 32), (1, 16, 1024, 64),
                       (2, 16, 256, 128), (8, 4, 64, 32)):  # fmt: skip
        name, x = _text(b, h, tokens, d), Input((b, tokens, h, d), swapped=(1, 2))
        yield Probe(f"attention {name}", F.scaled_dot_product_attention, (x, x, x))
        causal = functools.partial(F.scaled_dot_product_attention, is_causal=True)
        yield Probe(f"causal attention {name}", causal, (x, x, x))
        masked = lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m)  # noqa: E731
        yield Probe(f"masked attention {name}", masked, (x, x, x, Input((b, 1, tokens, tokens))))
        log_sum = Input((b, tokens, h), swapped=(1, 2))
        yield Probe(f"attention backward {name}", _attention_backward, (x, x, x, x, x, log_sum))


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor) -> Any:
    backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward
    return backward(gradient, q, k, v, out, log_sum, 0.0, False)
