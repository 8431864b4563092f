import pytest
import torch

from gnomon.kernels.neighborhood_attention import (
    NeighborhoodAttention1D,
    NeighborhoodAttention2D,
    NeighborhoodAttention3D,
    na2d,
)

LAYERS = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}


@pytest.mark.parametrize("axes", LAYERS)
def test_a_layer_is_its_projections_around_the_attention(axes):
    layer = LAYERS[axes](16, 2, 3, 2, is_causal=True, rel_pos_bias=True).double()
    space = (7, 6, 5)[:axes]
    x = torch.randn(2, *space, 16, dtype=torch.float64)
    # the same by hand: rows of the weight are [q or k or v, head, feature]
    weight, bias = layer.qkv.weight.reshape(3, 2, 8, 16), layer.qkv.bias.reshape(3, 2, 8)
    q, k, v = (torch.einsum("...c,hdc->...hd", x, weight[i]) + bias[i] for i in range(3))
    mixed = _by_reference(q, k, v, layer)
    wanted = mixed.flatten(-2) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x), wanted)


def _by_reference(q, k, v, layer):
    from gnomon.kernels.neighborhood_attention import Problem, reference

    window = Problem.of(q.shape[1:-2], layer.kernel_size, layer.stride, layer.dilation, layer.is_causal)
    return reference.neighborhood_attention(q, k, v, window, 8**-0.5, layer.rpb)[0]


def test_parameters_are_called_and_shaped_as_natten_s():
    layer = NeighborhoodAttention2D(16, 2, (3, 5), rel_pos_bias=True)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {"qkv.weight": (48, 16), "qkv.bias": (48,), "proj.weight": (16, 16), "proj.bias": (16,),
                      "rpb": (2, 5, 9)}  # fmt: skip
    plain = NeighborhoodAttention2D(16, 2, (3, 5), qkv_bias=False)
    assert set(plain.state_dict()) == {"qkv.weight", "proj.weight", "proj.bias"}
    plain.load_state_dict(NeighborhoodAttention2D(16, 2, 3, qkv_bias=False).state_dict())


def test_the_bias_starts_as_a_narrow_normal_distribution_cut_at_two():
    table = NeighborhoodAttention2D(64, 8, 21, rel_pos_bias=True).rpb
    assert 0.018 < table.std() < 0.022
    assert abs(table.mean()) < 0.001
    assert table.abs().max() <= 2


def test_dropout_acts_in_training_only():
    layer = NeighborhoodAttention1D(16, 2, 3, proj_drop=0.5)
    x = torch.randn(2, 9, 16)
    share = (layer(x) == 0).float().mean()
    assert 0.3 < share < 0.7
    assert not (layer.eval()(x) == 0).any()


def test_the_old_name_of_the_width_and_a_scale_of_zero_are_taken():
    layer = NeighborhoodAttention2D(dim=16, num_heads=2, kernel_size=3, qk_scale=0.0)
    assert layer.embed_dim == 16
    x = torch.randn(1, 5, 5, 16)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 2, 8)).unbind(-3)
    torch.testing.assert_close(layer(x), layer.proj(na2d(q, k, v, 3, scale=0.0).flatten(-2)))


def test_a_layer_runs_on_the_backend_it_was_made_for():
    x = torch.randn(1, 6, 6, 16)
    layer = NeighborhoodAttention2D(16, 2, 3, backend="triton")
    with pytest.raises(ValueError, match="backend 'triton' does not run here"):
        layer(x)


def test_its_description_says_what_it_sees():
    text = repr(NeighborhoodAttention2D(16, 2, 3, dilation=(1, 2), rel_pos_bias=True))
    for part in ("kernel_size=(3, 3)", "dilation=(1, 2)", "num_heads=2", "head_dim=8", "rel_pos_bias=True"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "embed_dim .* must be given once"),
        ({"embed_dim": 16, "dim": 16}, "embed_dim .* must be given once"),
        ({"embed_dim": 16}, "num_heads must be a positive int; got None"),
        ({"embed_dim": 16, "num_heads": 0}, "num_heads must be a positive int; got 0"),
        ({"embed_dim": True, "num_heads": 1}, "embed_dim must be a positive int; got True"),
        ({"embed_dim": 16, "num_heads": 2}, "kernel_size is missing"),
        (
            {"embed_dim": 16, "num_heads": 3, "kernel_size": 3},
            "embed_dim must be a multiple of num_heads; got 16 and 3",
        ),
        ({"embed_dim": 16, "num_heads": 2, "kernel_size": (3, 3, 3)}, "kernel_size needs one value"),
        ({"embed_dim": 16, "num_heads": 2, "kernel_size": 3, "stride": 4}, "stride must not be larger"),
        ({"embed_dim": 16, "num_heads": 2, "kernel_size": 3, "attn_drop": 0.1}, "attn_drop is 0.1"),
    ],
)
def test_bad_arguments_are_named_when_the_layer_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeighborhoodAttention2D(**arguments)


@pytest.mark.parametrize("shape", [(2, 6, 6, 6, 16), (2, 6, 16), (2, 6, 6, 15)])
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"x is \[.*\]; wanted 4 axes: \[batch, \*space, embed_dim = 16\]"):
        NeighborhoodAttention2D(16, 2, 3)(torch.zeros(shape))
