"""Random problems for the tests of detected attention."""

import torch
from hypothesis import strategies as st


@st.composite
def problems(draw):
    """(sizes, seed): B, H, G, N, M, D, R of a problem, odd ones included."""
    groups = draw(st.integers(1, 3))
    return {
        "B": draw(st.integers(1, 3)),
        "H": groups * draw(st.integers(1, 2)),
        "G": groups,
        "N": draw(st.integers(1, 70)),
        "M": draw(st.integers(1, 70)),
        "D": draw(st.sampled_from([1, 7, 16, 20, 32, 64])),
        "R": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 10**6)),
    }


def qkv(z, dtype=torch.float32, requires_grad=False):
    """Queries, keys and values; queries are scaled so that the softmax is not flat."""
    generator = torch.Generator().manual_seed(z["seed"])
    shapes = [(z["B"], z["H"], z["N"], z["D"]), *[(z["B"], z["G"], z["M"], z["D"])] * 2]
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [x.to(dtype).requires_grad_(requires_grad) for x in (2 * q, k, v)]


def estimates(z, largest=7):
    """int8 operands of a detector. A small `largest` makes many equal products."""
    generator = torch.Generator().manual_seed(z["seed"] + 1)
    shapes = [(z["B"], z["H"], z["N"], z["R"]), (z["B"], z["G"], z["M"], z["R"])]
    return [torch.randint(-largest, largest + 1, shape, generator=generator, dtype=torch.int8) for shape in shapes]


def padding(z, wanted=True):
    """A mask of existing keys, some sequences with few or none; None when not wanted."""
    if not wanted:
        return None
    generator = torch.Generator().manual_seed(z["seed"] + 2)
    lengths = torch.randint(0, z["M"] + 1, (z["B"], 1), generator=generator)
    return torch.arange(z["M"]) < lengths


def kept(z, most=None):
    """A random kept set: (index, count) with rows that keep nothing among them."""
    generator = torch.Generator().manual_seed(z["seed"] + 3)
    most = min(z["M"], most or z["M"])
    order = torch.rand(z["B"], z["H"], z["N"], z["M"], generator=generator).argsort(-1)[..., :most]
    count = torch.randint(0, most + 1, (z["B"], z["H"], z["N"]), generator=generator)
    inside = torch.arange(most) < count[..., None]
    index = order.masked_fill(~inside, z["M"]).sort(-1).values.masked_fill(~inside, -1)
    return index.int().contiguous(), count.int()
