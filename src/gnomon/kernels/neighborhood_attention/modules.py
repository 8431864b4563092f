"""Neighborhood attention as layers: qkv projection, attention, output projection.

Names of arguments and of parameters are NATTEN's (0.21, and 0.17 for what 0.20 dropped: relative position bias), so
that its checkpoints load and its models change an import.
"""

import torch
from torch import Tensor, nn

from gnomon.kernels.neighborhood_attention.functional import neighborhood_attention_generic
from gnomon.kernels.neighborhood_attention.problem import Bools, Ints, Problem

_BIAS_STD = 0.02  # as NATTEN 0.17 and Swin initialise their tables


class _NeighborhoodAttention(nn.Module):
    """[B, *space, C] -> [B, *space, C]. See the subclasses."""

    axes: int

    def __init__(
        self,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        kernel_size: Ints | None = None,
        stride: Ints = 1,
        dilation: Ints = 1,
        is_causal: Bools = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
        *,
        rel_pos_bias: bool = False,
        attn_drop: float = 0.0,
        dim: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if (embed_dim is None) == (dim is None):
            raise ValueError(f"embed_dim (or dim, its old name) must be given once; got {embed_dim=}, {dim=}")
        width = embed_dim if embed_dim is not None else dim
        assert width is not None
        for name, value in (("embed_dim", width), ("num_heads", num_heads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive int; got {value!r}")
        assert num_heads is not None
        if kernel_size is None:
            raise ValueError("kernel_size is missing; it has no default")
        if width % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads; got {width} and {num_heads}")
        if attn_drop:
            raise ValueError(
                f"attn_drop is {attn_drop}; attention weights are never in memory, so they cannot be dropped. Use 0.0, "
                "and proj_drop on the output"
            )
        # on a grid that any window fits into: what is wrong with the arguments shows here, not in the first forward
        window = Problem.of((2**31,) * self.axes, kernel_size, stride, dilation, is_causal)
        self.embed_dim, self.num_heads, self.head_dim = width, num_heads, width // num_heads
        self.kernel_size, self.stride, self.dilation = window.kernel_size, window.stride, window.dilation
        self.is_causal, self.backend = window.is_causal, backend
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.rpb: nn.Parameter | None = None
        if rel_pos_bias:
            table_HO = torch.empty(num_heads, *(2 * w - 1 for w in window.kernel_size))
            self.rpb = nn.Parameter(nn.init.trunc_normal_(table_HO, std=_BIAS_STD))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, *space, C]; returns the same shape. Raises ValueError for another rank or width."""
        if x.dim() != self.axes + 2 or x.shape[-1] != self.embed_dim:
            raise ValueError(
                f"x is {list(x.shape)}; wanted {self.axes + 2} axes: [batch, *space, embed_dim = {self.embed_dim}]"
            )
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)
        out = neighborhood_attention_generic(
            q,
            k,
            v,
            self.kernel_size,
            self.stride,
            self.dilation,
            self.is_causal,
            self.scale,
            rpb=self.rpb,
            backend=self.backend,
        )
        assert isinstance(out, Tensor)  # no LSE was asked for
        return self.proj_drop(self.proj(out.flatten(-2)))

    def extra_repr(self) -> str:
        return (
            f"head_dim={self.head_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, dilation={self.dilation}, is_causal={self.is_causal}, "
            f"rel_pos_bias={self.rpb is not None}"
        )


_ARGUMENTS = """

    embed_dim: width C, a multiple of num_heads (`dim` is its old name). kernel_size, stride, dilation, is_causal: one
    value, or one per axis; see `neighborhood_attention_generic`. qkv_bias: a bias in the projection to queries, keys
    and values. qk_scale: of the scores, head_dim ** -0.5 when None. proj_drop: dropout of the output. rel_pos_bias: a
    learned table `rpb` [heads, 2 * kernel_size - 1 per axis], from a normal distribution of deviation 0.02, cut at 2.
    attn_drop: 0.0 only. backend: 'auto' or None for the fastest, or a name. Parameters are called as NATTEN's: qkv,
    proj, rpb. Raises ValueError naming the argument.
    """


class NeighborhoodAttention1D(_NeighborhoodAttention):
    __doc__ = "Neighborhood attention layer on sequences [B, L, C]." + _ARGUMENTS
    axes = 1


class NeighborhoodAttention2D(_NeighborhoodAttention):
    __doc__ = "Neighborhood attention layer on feature maps [B, X, Y, C]." + _ARGUMENTS
    axes = 2


class NeighborhoodAttention3D(_NeighborhoodAttention):
    __doc__ = "Neighborhood attention layer on videos and volumes [B, T, X, Y, C]." + _ARGUMENTS
    axes = 3
