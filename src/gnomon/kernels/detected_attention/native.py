"""The C++ functions of `cpu.cpp`, called with tensors: float32 and contiguous for them, D a multiple of 16."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gnomon.kernels import _native
from gnomon.kernels.detected_attention import select

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
TILE, KEYS = 64, 256  # queries and keys of a work item, as in attend.h and cpu.cpp
LANES = 16


class Sizes(ctypes.Structure):
    """Axes of a problem, as cpu.cpp wants them."""

    _fields_ = tuple((name, _I) for name in ("batch", "heads", "groups", "queries", "keys", "width", "kept"))


class Detection(ctypes.Structure):
    """The operands of a detector, as cpu.cpp wants them."""

    _fields_ = (*((name, _P) for name in ("q", "room", "offset", "mask", "keep")), ("rank", _I), ("is_causal", _I))


class Blocks(ctypes.Structure):
    """Queries and keys of a block and its masks, as cpu.cpp wants them."""

    _fields_ = (*((name, _I) for name in ("queries", "keys", "is_causal")), ("mask", _P))


_SIZES, _BLOCKS = ctypes.POINTER(Sizes), ctypes.POINTER(Blocks)

KERNELS = _native.Kernels(
    "detected attention",
    Path(__file__).with_name("cpu.cpp"),
    {
        "token_forward": [_P] * 5 + [_SIZES, _F, _P, _P, _P],
        "token_backward_rows": [_P] * 9 + [_SIZES, _F, _P, _P, _P, _P],
        "token_backward_keys": [_P] * 6 + [_SIZES, _P, _P, _P],
        "pack_keys": [_P, _I, _I, _I, _P, _P, _P],
        "select_top_k": [ctypes.POINTER(Detection), _SIZES, _P, _P, _P],
        "block_forward": [_P] * 5 + [_SIZES, _BLOCKS, _F, _P, _P, _P],
        "block_backward_rows": [_P] * 10 + [_SIZES, _BLOCKS, _F, _P, _P, _P, _P],
        "block_backward_keys": [_P] * 6 + [_SIZES, _BLOCKS, _P, _P, _P],
        "select_blocks": [ctypes.POINTER(Detection), _SIZES, _BLOCKS, _P, _P, _P],
        "detect_attend": [ctypes.POINTER(Detection), _P, _P, _P, _SIZES, _F, _P, _P, _P],
    },
)


def token_forward(
    library: Any, q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """See `operator.sparse_attention`."""
    size, (q, k, v) = q.shape[-1], (_rows(x) for x in (q, k, v))
    index, count = index.contiguous(), count.contiguous()
    sizes = _sizes(q, k, index.shape[-1])
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    given = (*map(_at, (q, k, v, index, count)), ctypes.byref(sizes), scale, _at(out), _at(lse))
    _native.parallel(lambda counter: library.token_forward(*given, counter), _tiles(sizes))
    return out[..., :size], lse


def token_backward(
    library: Any,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    index: Tensor,
    count: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `operator.sparse_attention`. Keeps two floats for each kept key between its two passes."""
    size, (grad_out, q, k, v, out) = q.shape[-1], (_rows(x) for x in (grad_out, q, k, v, out))
    index, count, lse = index.contiguous(), count.contiguous(), lse.contiguous()
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    sizes = _sizes(q, k, index.shape[-1])
    p, ds = (q.new_empty(*index.shape[:3], -(-index.shape[-1] // LANES) * LANES) for _ in range(2))
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    given = (*map(_at, (grad_out, grad_lse, q, k, v, out, lse, index, count)), ctypes.byref(sizes), scale)
    _native.parallel(
        lambda counter: library.token_backward_rows(*given, _at(p), _at(ds), _at(dq), counter), _tiles(sizes)
    )
    given = (*map(_at, (grad_out, q, index, count, p, ds)), ctypes.byref(sizes), _at(dk), _at(dv))
    ranges = sizes.batch * sizes.groups * -(-sizes.keys // KEYS)
    _native.parallel(lambda counter: library.token_backward_keys(*given, counter), ranges)
    return dq[..., :size], dk[..., :size], dv[..., :size]


def block_forward(
    library: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    count: Tensor,
    block: Sequence[int],
    is_causal: bool,
    key_mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See `operator.block_sparse_attention`."""
    size, (q, k, v) = q.shape[-1], (_rows(x) for x in (q, k, v))
    index, count, k_transposed = index.contiguous(), count.contiguous(), _transposed(k, block[1])
    sizes, (blocks, alive) = _sizes(q, k, index.shape[-1]), _blocks(block, is_causal, key_mask)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    given = (*map(_at, (q, k_transposed, v, index, count)), ctypes.byref(sizes), ctypes.byref(blocks), scale)
    _native.parallel(lambda counter: library.block_forward(*given, _at(out), _at(lse), counter), count.numel())
    del alive
    return out[..., :size], lse


def block_backward(
    library: Any,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    index: Tensor,
    count: Tensor,
    block: Sequence[int],
    is_causal: bool,
    key_mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `operator.block_sparse_attention`. Keeps two floats for each kept pair between its two passes."""
    size, (grad_out, q, k, v, out) = q.shape[-1], (_rows(x) for x in (grad_out, q, k, v, out))
    index, count, lse = index.contiguous(), count.contiguous(), lse.contiguous()
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    k_transposed, v_transposed = _transposed(k, block[1]), _transposed(v, block[1])
    sizes, (blocks, alive) = _sizes(q, k, index.shape[-1]), _blocks(block, is_causal, key_mask)
    p, ds = (q.new_empty(*q.shape[:3], index.shape[-1] * k_transposed.shape[-1]) for _ in range(2))
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    ends = (ctypes.byref(sizes), ctypes.byref(blocks))
    rows = (*map(_at, (grad_out, grad_lse, q, k_transposed, v_transposed, k, out, lse, index, count)), *ends, scale)
    _native.parallel(
        lambda counter: library.block_backward_rows(*rows, _at(p), _at(ds), _at(dq), counter), count.numel()
    )
    keys = (*map(_at, (grad_out, q, index, count, p, ds)), *ends, _at(dk), _at(dv))
    _native.parallel(
        lambda counter: library.block_backward_keys(*keys, counter),
        sizes.batch * sizes.groups * k_transposed.shape[2],
    )
    del alive
    return dq[..., :size], dk[..., :size], dv[..., :size]


def select_blocks(
    library: Any,
    q_est: Tensor,
    k_est: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    retention: float,
    block: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """See `operator.select_blocks`."""
    batch, heads, queries, _ = q_est.shape
    exist = None if key_mask is None else select.block_exists(key_mask, block[1])
    detection, alive = _detection(library, q_est, k_est, key_mask, is_causal, retention, exist, block[1])
    parts = -(-k_est.shape[2] // block[1])
    sizes = Sizes(batch, heads, k_est.shape[1], queries, k_est.shape[2], 0, select.kept_of(retention, parts))
    index = q_est.new_empty(batch, heads, -(-queries // block[0]), sizes.kept, dtype=torch.int32)
    count = q_est.new_empty(index.shape[:3], dtype=torch.int32)
    blocks, _ = _blocks(block, is_causal, None)
    given = (*map(ctypes.byref, (detection, sizes, blocks)), _at(index), _at(count))
    _native.parallel(lambda counter: library.select_blocks(*given, counter), count.numel())
    del alive
    return index, count


def select_top_k(
    library: Any, q_est: Tensor, k_est: Tensor, key_mask: Tensor | None, is_causal: bool, retention: float
) -> tuple[Tensor, Tensor]:
    """See `operator.select_top_k`."""
    batch, heads, queries, _ = q_est.shape
    detection, alive = _detection(library, q_est, k_est, key_mask, is_causal, retention, key_mask)
    sizes = Sizes(batch, heads, k_est.shape[1], queries, k_est.shape[2], 0, select.kept_of(retention, k_est.shape[2]))
    index = q_est.new_empty(batch, heads, queries, sizes.kept, dtype=torch.int32)
    count = q_est.new_empty(batch, heads, queries, dtype=torch.int32)
    given = (ctypes.byref(detection), ctypes.byref(sizes), _at(index), _at(count))
    _native.parallel(lambda counter: library.select_top_k(*given, counter), _tiles(sizes))
    del alive
    return index, count


def detect_attend(
    library: Any,
    q_est: Tensor,
    k_est: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    retention: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See `operator.detect_attend`."""
    detection, alive = _detection(library, q_est, k_est, key_mask, is_causal, retention, key_mask)
    size, (q, k, v) = q.shape[-1], (_rows(x) for x in (q, k, v))
    sizes = _sizes(q, k, select.kept_of(retention, k.shape[2]))
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    given = (ctypes.byref(detection), *map(_at, (q, k, v)), ctypes.byref(sizes), scale, _at(out), _at(lse))
    _native.parallel(lambda counter: library.detect_attend(*given, counter), _tiles(sizes))
    del alive
    return out[..., :size], lse


def _detection(
    library: Any,
    q_est: Tensor,
    k_est: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    retention: float,
    exist: Tensor | None,
    size: int = 1,
) -> tuple[Detection, tuple[Any, ...]]:
    """The operands, and the tensors that must live as long as they are used.

    exist: bool [B, U], which of the things to keep exist, blocks of `size` keys; None for all.
    """
    batch, groups, keys, rank = k_est.shape
    q_est, k_est = q_est.contiguous(), k_est.contiguous()
    padded = -(-keys // LANES) * LANES
    room = torch.zeros(batch * groups, padded * -(-rank // 4) * 4)
    offset = torch.zeros(batch * groups, padded, dtype=torch.int32)
    keep = select.kept_per_sequence(retention, batch, -(-keys // size), exist).int()
    mask = None if key_mask is None else key_mask.contiguous()
    heads = batch * groups
    _native.parallel(
        lambda counter: library.pack_keys(_at(k_est), heads, keys, rank, _at(room), _at(offset), counter), heads
    )
    detection = Detection(_at(q_est), _at(room), _at(offset), _at(mask), _at(keep), rank, is_causal)
    return detection, (q_est, k_est, room, offset, mask, keep)


def _rows(x: Tensor) -> Tensor:
    """Contiguous float32 rows, padded with zeros to a multiple of 16, which changes no product."""
    x = x.float()
    return (functional.pad(x, (0, -x.shape[-1] % LANES)) if x.shape[-1] % LANES else x).contiguous()


def _transposed(x: Tensor, size: int) -> Tensor:
    """[B, G, U, D, keys of a block rounded up to 16] of [B, G, M, D], zeros behind the keys that are not there."""
    x = functional.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size)).transpose(-1, -2)
    return functional.pad(x, (0, -size % LANES)).contiguous()


def _blocks(block: Sequence[int], is_causal: bool, key_mask: Tensor | None) -> tuple[Blocks, Tensor | None]:
    """The sizes, and the mask that must live as long as they are used."""
    mask = None if key_mask is None else key_mask.contiguous()
    return Blocks(block[0], block[1], is_causal, _at(mask)), mask


def _sizes(q: Tensor, k: Tensor, kept: int) -> Sizes:
    return Sizes(q.shape[0], q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3], kept)


def _tiles(sizes: Sizes) -> int:
    return int(sizes.batch * sizes.heads * -(-sizes.queries // TILE))


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
