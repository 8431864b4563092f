"""The detector of DOTA: estimates all attention scores of a layer at low rank, in low-precision integers.

Qu et al. 2022, doi 10.1145/3503222.3507738: S~ = (X P W~_Q) (X P W~_K)^T with a fixed sparse random projection P
(Achlioptas 2003, doi 10.1016/S0022-0000(03)00025-4) and learned r x r maps per head. Integers follow the usual
symmetric scheme, x ~ scale * round(x / scale) with the largest magnitude on 2^(bits-1) - 1; gradients pass the rounding
straight through. One scale per head of W~, per sequence of XP, per sequence and head of XPW~; padding has no say in
them. That XPW~ is rounded again is ours: without it the n^2 r products would not be of `bits` bits.

Scales look at the whole sequence, so a causal model's scores depend, by a common factor and by rounding, on what
follows; the order of a query's keys depends on it by rounding alone.

Axes: B batch, N tokens, C width of the layer, R rank, H query heads, G key heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

BITS = (2, 4, 8, 16)


class Estimate(NamedTuple):
    """Both sides of the estimated scores S~ = scale * q k^T; of a quantized detector, q and k hold whole numbers."""

    q_BHNR: Tensor
    k_BGNR: Tensor
    scale_BH11: Tensor

    def scores(self) -> Tensor:
        """S~ [B, H, N, N], exact integer products times the scale."""
        return self.products() * self.scale_BH11

    def integers(self) -> tuple[Tensor, Tensor]:
        """q and k as int8, of a detector of at most 8 bits: what `operator.select_top_k` takes."""
        return self.q_BHNR.detach().to(torch.int8), self.k_BGNR.detach().to(torch.int8)

    def products(self) -> Tensor:
        """q k^T [B, H, N, N]: whole numbers, hence exact, of a quantized detector."""
        k_BHNR = self.k_BGNR.repeat_interleave(self.q_BHNR.shape[1] // self.k_BGNR.shape[1], 1)
        return self.q_BHNR @ k_BHNR.transpose(-1, -2)


class Detector(nn.Module):
    """P, W~_Q [H, R, R] and W~_K [G, R, R] of one attention layer.

    width: of the layer's input. heads: query heads H; every one has its own estimate and so its own selection.
    key_heads: G, None for H; with grouped queries a group shares W~_K as it shares its keys. rank: R. bits: 2, 4, 8,
    16, or None for no rounding. bias: adds a learned vector to XPW~ on both sides, for layers whose projections have
    one; the paper has none. seed: of P and of the first W~. P is a buffer, so it is saved with the weights.
    Raises ValueError naming the argument.
    """

    P_CR: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        rank: int,
        bits: int | None = 4,
        key_heads: int | None = None,
        bias: bool = False,
        seed: int = 0,
    ) -> None:
        key_heads = heads if key_heads is None else key_heads
        for name, value in (("width", width), ("heads", heads), ("rank", rank), ("key_heads", key_heads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if bits is not None and bits not in BITS:
            raise ValueError(f"bits must be one of {BITS}, or None for no rounding; got {bits}")
        if heads % key_heads:
            raise ValueError(f"key_heads must divide the {heads} query heads; got {key_heads}")
        super().__init__()
        self.heads, self.key_heads, self.rank, self.bits = heads, key_heads, rank, bits
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("P_CR", projection(width, rank, generator))
        self.wq_HRR, self.wk_GRR = (
            nn.Parameter(torch.randn(n, rank, rank, generator=generator) * rank**-0.5) for n in (heads, key_heads)
        )
        self.bq_H1R, self.bk_G1R = (nn.Parameter(torch.zeros(n, 1, rank)) if bias else None for n in (heads, key_heads))

    def forward(self, x_BNC: Tensor, key_mask_BN: Tensor | None = None) -> Estimate:
        """x: the layer's input [B, N, C]. key_mask: bool [B, N], True where the token exists."""
        # whole numbers of 8 bits and their sums need float32, also inside a model of fewer bits
        wide = torch.float64 if x_BNC.dtype == torch.float64 else torch.float32
        with torch.autocast(x_BNC.device.type, enabled=False):
            return self._estimate(x_BNC.to(wide), key_mask_BN)

    def _estimate(self, x_BNC: Tensor, key_mask_BN: Tensor | None) -> Estimate:
        exists_B1N1 = None if key_mask_BN is None else key_mask_BN[:, None, :, None]
        xp_B1NR = (x_BNC @ self.P_CR.to(x_BNC.dtype)).unsqueeze(1)
        xp_B1NR, x_scale = _round(xp_B1NR, self.bits, exists_B1N1)
        sides = []
        for weight, b in ((self.wq_HRR, self.bq_H1R), (self.wk_GRR, self.bk_G1R)):
            w, w_scale = _round(weight.to(x_BNC.dtype), self.bits)
            side, scale = xp_B1NR @ w, x_scale * w_scale
            if b is not None:
                side = side + b / scale
            side, rounded = _round(side, self.bits, exists_B1N1)
            sides.append((side, scale * rounded))
        (q_BHNR, q_scale), (k_BGNR, k_scale) = sides
        return Estimate(q_BHNR, k_BGNR, q_scale * k_scale.repeat_interleave(self.heads // self.key_heads, 1))

    @torch.no_grad()
    def start_from(self, wq_HCD: Tensor, wk_GCD: Tensor, scale: float) -> None:
        """Set W~ to the least-squares map from XP to the layer's own queries and keys, for white X.

        wq, wk: the layer's projections [H, C, D] and [G, C, D], x -> x w. scale: of the layer's scores. With R = C,
        P = I and no rounding the estimate is exactly S. The map between XP and XP, [R, R] whatever D is, is split
        evenly over both sides by its singular values, so that both round alike.
        """
        # directions that P nearly loses would need weights that leave the few bits to themselves
        least = 0.0 if self.bits is None else 1 / (2 ** (self.bits - 1) - 1 + 1e-9)
        inverse_RC = torch.linalg.pinv(self.P_CR.double(), rtol=min(least, 0.5))
        group = self.heads // self.key_heads
        for head in range(self.key_heads):
            rows = slice(head * group, (head + 1) * group)
            q_R_ = torch.cat([inverse_RC @ w.double() for w in wq_HCD[rows]], 0)  # [group * R, D]
            k_RD = inverse_RC @ wk_GCD[head].double()
            u, s, vh = torch.linalg.svd(q_R_ @ k_RD.T, full_matrices=False)
            root = s.sqrt() * abs(scale) ** 0.5
            self.wq_HRR[rows] = (u * root).reshape(group, self.rank, self.rank).to(self.wq_HRR)
            self.wk_GRR[head] = (vh.T * root).to(self.wk_GRR)
        if scale < 0:
            self.wq_HRR.neg_()


def projection(width: int, rank: int, generator: torch.Generator) -> Tensor:
    """Achlioptas' matrix [width, rank]: sqrt(3 / rank) times +1 and -1 with probability 1/6 each, else 0."""
    draw = torch.randint(0, 6, (width, rank), generator=generator)
    return ((draw == 0).float() - (draw == 1).float()) * (3 / rank) ** 0.5


def project_by_additions(x_BNC: Tensor, P_CR: Tensor) -> Tensor:
    """x P as made without multipliers: sums of columns of x, less sums of columns, one scaling at the end."""
    columns = [x_BNC[..., p > 0].sum(-1) - x_BNC[..., p < 0].sum(-1) for p in P_CR.unbind(1)]
    return torch.stack(columns, -1) * P_CR.abs().max()


def _round(x: Tensor, bits: int | None, exists: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(whole numbers n with |n| <= 2^(bits-1) - 1, scale) such that scale * n ~ x, over the last two axes.

    Whole numbers of 16 bits are float64, since float32 would round their products.
    """
    if bits is None:
        return x, x.new_ones(*x.shape[:-2], 1, 1)
    with torch.no_grad():
        size = x.abs() if exists is None else x.abs() * exists
        largest = size.amax((-2, -1), keepdim=True)
        scale = (largest / (2 ** (bits - 1) - 1)).clamp_min(torch.finfo(x.dtype).tiny)
    x = x / scale
    limit = 2.0 ** (bits - 1) - 1
    x = x + (x.round().clamp(-limit, limit) - x).detach()
    return (x.double() if bits == 16 else x), scale
