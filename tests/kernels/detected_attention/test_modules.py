import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels.detected_attention import (
    DetectedAttention,
    Detector,
    Selection,
    detector_loss,
    detectors_only,
    estimation_loss,
    jointly,
    reference,
    set_mode,
    sparse_attention,
)


class Layer(nn.Module):
    """Grouped-query self-attention with a detector."""

    def __init__(self, selection, bits=4):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 32), nn.Linear(16, 16), nn.Linear(16, 16)
        self.attention = DetectedAttention(Detector(16, 4, 8, bits, key_heads=2), selection)

    def forward(self, x, is_causal=False, key_mask=None):
        q, k, v = (f(x).unflatten(-1, (-1, 8)).transpose(1, 2) for f in (self.query, self.key, self.value))
        self.qkv = q, k, v
        return self.attention(x, q, k, v, is_causal, key_mask)


SELECTIONS = {
    "token": Selection(0.3),
    "block": Selection(0.5, granularity="block", block=(4, 3)),
    "block mean": Selection(0.5, granularity="block", block=(4, 3), pool="mean"),
    "threshold": Selection(threshold=0.1),
    "block threshold": Selection(threshold=0.1, granularity="block", block=(4, 3)),
}


def mask():
    """Sequences of 11 and 6 tokens."""
    return torch.arange(11) < torch.tensor([[11], [6]])


@pytest.mark.parametrize("bits", [4, 16, None])
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_inference_attends_to_exactly_what_is_kept(selection, bits, is_causal):
    layer, x = Layer(SELECTIONS[selection], bits).eval(), torch.randn(2, 11, 16)
    with torch.no_grad():
        found = layer(x, is_causal, mask())
        q, k, v = layer.qkv
        kept = layer.attention.keep(x, q, k, is_causal, mask())
        pairs = layer.attention.selection.mask(kept, 11, 11)
        pairs = pairs & reference.visible(11, 11, is_causal, mask(), x.device)
        wanted, _ = reference.masked_attention(q, k, v, pairs, 8**-0.5)
    torch.testing.assert_close(found, wanted)
    assert not pairs.all()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_training_attends_to_what_inference_does(selection):
    layer, x = Layer(SELECTIONS[selection]), torch.randn(2, 11, 16)
    trained = layer.train()(x, True, mask())
    torch.testing.assert_close(trained, layer.eval()(x, True, mask()))


def test_the_fused_inference_gives_what_the_operators_with_a_gradient_give():
    layer, x = Layer(Selection(0.3)).eval(), torch.randn(2, 11, 16)
    with torch.no_grad():
        fused = layer(x, False, mask())
    assert not fused.requires_grad
    torch.testing.assert_close(layer(x, False, mask()), fused)


@pytest.mark.parametrize("selection", [Selection(1.0), Selection(1.0, granularity="block", block=(4, 4))])
@pytest.mark.parametrize("training", [False, True])
def test_keeping_everything_is_dense_attention(selection, training):
    layer, x = Layer(selection).train(training), torch.randn(2, 11, 16)
    found = layer(x)
    torch.testing.assert_close(found, scaled_dot_product_attention(*layer.qkv, enable_gqa=True))


def test_dense_and_observing_layers_are_dense_and_only_the_second_has_a_loss():
    layer, x = Layer(Selection(0.1)), torch.randn(2, 11, 16)
    for mode, has_loss in (("dense", False), ("observe", True)):
        set_mode(layer, mode)
        found = layer(x)
        torch.testing.assert_close(found, scaled_dot_product_attention(*layer.qkv, enable_gqa=True))
        assert (layer.attention.loss is not None) == has_loss


def test_the_loss_is_the_papers_mean_square_in_units_of_the_variance():
    layer, x = Layer(Selection(0.3)), torch.randn(2, 11, 16)
    layer(x, False, mask())
    q, k, _ = layer.qkv
    seen = mask()[:, None, None, :].expand(2, 4, 11, 11)
    exact = q @ k.repeat_interleave(2, 1).mT / 8**0.5
    estimate = layer.attention.detector(x, mask()).scores()
    wanted = torch.stack(
        [
            (exact - estimate)[:, h][seen[:, h]].square().mean() / exact[:, h][seen[:, h]].var(correction=0)
            for h in range(4)
        ]
    ).mean()
    torch.testing.assert_close(detector_loss(layer), wanted)


def test_the_loss_without_a_mask_is_that_with_a_mask_of_everything():
    exact, estimate = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    everything = torch.ones(5, 5, dtype=torch.bool)
    torch.testing.assert_close(estimation_loss(exact, estimate), estimation_loss(exact, estimate, everything))


def test_the_loss_does_not_fall_when_all_scores_are_flattened():
    exact, estimate = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(estimation_loss(exact, estimate), estimation_loss(exact / 9, estimate / 9))


def test_the_detectors_loss_reaches_detector_and_projections():
    layer, x = Layer(Selection(0.3)), torch.randn(2, 11, 16)
    layer(x)
    detector_loss(layer).backward()
    for weight in (layer.attention.detector.wq_HRR, layer.attention.detector.wk_GRR, layer.query.weight):
        assert weight.grad.abs().sum() > 0
    assert layer.value.weight.grad is None


@pytest.mark.parametrize("training", [False, True])
def test_the_models_loss_flows_through_kept_keys_only_and_not_into_the_detector(training):
    layer, x = Layer(Selection(0.3)).train(training), torch.randn(1, 11, 16)
    found = layer(x)
    q, k, v = layer.qkv
    wanted = [y.detach().requires_grad_() for y in (q, k, v)]
    kept = layer.attention.keep(x, q, k)
    weight = torch.randn_like(found)
    grads = torch.autograd.grad((found * weight).sum(), (q, k, v), retain_graph=True)
    exact = torch.autograd.grad((sparse_attention(*wanted, *kept)[0] * weight).sum(), wanted)
    torch.testing.assert_close(grads, exact)
    (found * weight).sum().backward()
    assert layer.attention.detector.wq_HRR.grad is None


def test_first_only_detectors_learn_and_then_everything_does():
    layer, x = Layer(Selection(0.3)), torch.randn(4, 11, 16)
    layer.key.bias.requires_grad_(False)
    with detectors_only(layer) as parameters:
        assert {id(p) for p in parameters} == {id(p) for p in layer.attention.detector.parameters()}
        optimizer = torch.optim.Adam(parameters, 0.02)
        losses = []
        for _ in range(80):
            layer(x)
            optimizer.zero_grad()
            detector_loss(layer).backward()
            optimizer.step()
            losses.append(float(detector_loss(layer).detach()))
        assert layer.query.weight.grad is None
    assert losses[-1] < 0.7 * losses[0]
    assert layer.attention.mode == "sparse"
    assert [name for name, p in layer.named_parameters() if not p.requires_grad] == ["key.bias"]
    set_mode(layer, "dense")
    with jointly(layer) as parameters:
        assert layer.attention.mode == "sparse"
        assert len(parameters) == len(list(layer.parameters())) - 1
    assert layer.attention.mode == "dense"


def test_scores_of_an_oracle_stand_in_for_the_detector():
    layer, x = Layer(Selection(0.1)).eval(), torch.randn(1, 11, 16)
    layer.attention.scores = lambda x, q, k: torch.eye(11).expand(1, 4, 11, 11)  # ceil(0.1 * 11) = 2 keys
    found = layer(x)
    value = layer.qkv[2].repeat_interleave(2, 1)
    scores = (layer.qkv[0] @ layer.qkv[1].repeat_interleave(2, 1).mT) / 8**0.5
    own, first = scores.diagonal(dim1=-2, dim2=-1)[..., 1:, None], scores[..., 1:, :1]
    share = torch.sigmoid(own - first)  # two keys are kept: a token's own, and of all equal ones the first
    torch.testing.assert_close(found[:, :, 1:], share * value[:, :, 1:] + (1 - share) * value[:, :, :1])


def test_a_layer_can_be_copied_after_it_has_learnt():
    layer, x = Layer(Selection(0.3)), torch.randn(1, 11, 16)
    layer(x)
    layer.qkv = None
    twin = copy.deepcopy(layer)
    assert twin.attention.loss is None
    torch.testing.assert_close(twin.eval()(x), layer.eval()(x))


def test_a_threshold_reports_its_retention():
    layer, x = Layer(Selection(threshold=1e9)).eval(), torch.randn(1, 11, 16)
    layer(x)
    assert layer.attention.retention == pytest.approx((1 / 11,) * 4)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"retention": 0.0}, "retention must be above 0"),
        ({"retention": 1.1}, "retention must be above 0"),
        ({"granularity": "row"}, "granularity must be 'token' or 'block'; got 'row'"),
        ({"block": (0, 4)}, "block must be two positive sizes"),
        ({"pool": "sum"}, "pool must be 'max' or 'mean'"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_by_name(arguments, match):
    with pytest.raises(ValueError, match=match):
        Selection(**arguments)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="model holds no DetectedAttention"):
        detector_loss(nn.Linear(2, 2))
    layer = Layer(Selection(0.3))
    with pytest.raises(ValueError, match="model has no detector loss: run a forward"):
        detector_loss(layer)
    with pytest.raises(ValueError, match="mode must be 'dense', 'observe' or 'sparse'; got 'fast'"):
        set_mode(layer, "fast")
    with pytest.raises(ValueError, match="at least one token"):
        layer(torch.zeros(1, 0, 16))
