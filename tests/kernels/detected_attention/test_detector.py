import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.kernels.detected_attention import DetectedAttention, Detector, Selection, select
from gnomon.kernels.detected_attention.detector import project_by_additions, projection


def layer(width=12, heads=4, key_heads=2, size=5, seed=0):
    """Random projections of a layer, [H, C, D] and [G, C, D], and what they make of a random input."""
    generator = torch.Generator().manual_seed(seed)
    wq, wk = (torch.randn(n, width, size, generator=generator, dtype=torch.float64) for n in (heads, key_heads))
    x = torch.randn(2, 9, width, generator=generator, dtype=torch.float64)
    return x, wq, wk, x[:, None] @ wq, x[:, None] @ wk


@pytest.mark.parametrize("scale", [0.3, -0.2])
def test_a_full_rank_detector_without_rounding_estimates_the_scores_exactly(scale):
    x, wq, wk, q, k = layer()
    detector = Detector(12, 4, 12, bits=None, key_heads=2).double()
    detector.P_CR.copy_(torch.eye(12))
    detector.start_from(wq, wk, scale)
    torch.testing.assert_close(detector(x).scores(), q @ k.repeat_interleave(2, 1).mT * scale)


def test_a_full_rank_detector_keeps_what_exact_scores_keep():
    x, wq, wk, q, k = layer()
    detector = Detector(12, 4, 12, bits=None, key_heads=2).double()
    detector.P_CR.copy_(torch.eye(12))
    detector.start_from(wq, wk, 1.0)
    attention = DetectedAttention(detector, Selection(0.4))
    found = attention.keep(x, q, k)
    wanted = select.top_k(q @ k.repeat_interleave(2, 1).mT, 0.4, torch.ones(9, 9, dtype=torch.bool))
    assert torch.equal(found.indices, wanted.indices)


def test_the_projection_has_three_values_in_the_papers_shares():
    P = projection(300, 200, torch.Generator().manual_seed(0))
    size = (3 / 200) ** 0.5
    entries = P.numel()
    for value, share in ((size, 1 / 6), (-size, 1 / 6), (0.0, 2 / 3)):
        found = float((P == torch.tensor(value)).double().mean())
        assert abs(found - share) < 4 * (share * (1 - share) / entries) ** 0.5
    assert set(P.unique().tolist()) == {0.0, torch.tensor(size).item(), torch.tensor(-size).item()}


def test_the_projection_keeps_inner_products_in_expectation():
    draws = torch.stack([projection(6, 4, torch.Generator().manual_seed(seed)) for seed in range(2000)]).double()
    products = draws @ draws.mT
    error = products.std(0) / 2000**0.5
    assert ((products.mean(0) - torch.eye(6)).abs() < 4 * error + 1e-12).all()


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6))
def test_additions_project_as_the_matrix_does(width, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    P, x = projection(width, rank, generator).double(), torch.randn(2, 3, width, generator=generator).double()
    torch.testing.assert_close(project_by_additions(x, P), x @ P)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_quantized_detector_holds_whole_numbers_of_its_bits_and_comes_close_to_the_unquantized(bits):
    x, wq, wk, *_ = layer()
    exact, rounded = (Detector(12, 4, 12, b, key_heads=2).double() for b in (None, bits))
    for detector in (exact, rounded):
        detector.P_CR.copy_(torch.eye(12))
        detector.start_from(wq, wk, 0.3)
    estimate = rounded(x)
    for side in (estimate.q_BHNR, estimate.k_BGNR):
        assert torch.equal(side, side.round())
        assert side.abs().max() == 2 ** (bits - 1) - 1
    wanted = exact(x).scores().detach()
    error = float((estimate.scores().detach() - wanted).std() / wanted.std())
    assert error < {2: 1.5, 4: 0.4, 8: 0.03, 16: 1e-4}[bits]


def test_whole_numbers_are_the_int8_operands_of_the_same_scores():
    x = torch.randn(2, 9, 12)
    estimate = Detector(12, 4, 6, 8, key_heads=2)(x)
    q, k = (side.double() for side in estimate.integers())
    torch.testing.assert_close(estimate.products().double(), q @ k.repeat_interleave(2, 1).mT, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 4, 8, 16, None])
def test_padding_changes_nothing_for_the_tokens_that_exist(bits):
    detector = Detector(12, 4, 6, bits, bias=True)
    torch.nn.init.normal_(detector.bq_H1R)
    x = torch.randn(1, 9, 12)
    padded = torch.cat([x, 1e3 * torch.randn(1, 4, 12)], 1)
    mask = torch.arange(13)[None] < 9
    torch.testing.assert_close(detector(padded, mask).scores()[..., :9, :9], detector(x).scores())


def test_an_input_of_zeros_gives_scores_of_zero():
    assert not Detector(12, 4, 6)(torch.zeros(1, 3, 12)).scores().any()


def test_a_bias_is_added_before_the_second_rounding():
    detector = Detector(12, 2, 6, None, bias=True)
    torch.nn.init.normal_(detector.bq_H1R)
    torch.nn.init.normal_(detector.bk_G1R)
    x = torch.randn(2, 5, 12)
    xp = x[:, None] @ detector.P_CR
    q, k = xp @ detector.wq_HRR + detector.bq_H1R, xp @ detector.wk_GRR + detector.bk_G1R
    torch.testing.assert_close(detector(x).scores(), q @ k.mT)


def test_the_projection_is_saved_with_the_weights():
    one, other = Detector(12, 4, 6, seed=1), Detector(12, 4, 6, seed=2)
    assert not torch.equal(one.P_CR, other.P_CR)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.P_CR, other.P_CR)
    assert "P_CR" not in dict(one.named_parameters())


def test_two_detectors_of_one_seed_keep_the_same_keys():
    x, _, _, q, k = layer()
    kept = [
        DetectedAttention(Detector(12, 4, 6, key_heads=2, seed=3).double(), Selection(0.3)).keep(x, q, k)
        for _ in range(2)
    ]
    assert torch.equal(kept[0].indices, kept[1].indices)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rank": 0}, "rank must be at least 1; got 0"),
        ({"bits": 3}, r"bits must be one of \(2, 4, 8, 16\), or None"),
        ({"bits": 1}, "bits must be one of"),
        ({"width": 0}, "width must be at least 1"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"key_heads": 3}, "key_heads must divide the 4 query heads; got 3"),
    ],
)
def test_a_detector_that_cannot_be_is_refused_by_name(arguments, match):
    with pytest.raises(ValueError, match=match):
        Detector(**({"width": 12, "heads": 4, "rank": 6} | arguments))
