import inspect
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from gnomon.kernels.neighborhood_attention import (
    NeighborhoodAttention2D,
    attention,
    na1d,
    na2d,
    na3d,
    neighborhood_attention_generic,
    why_not,
)

Z = torch.zeros


def qkv(*space, heads=2, heads_kv=None, head_dim=8, dtype=torch.float32, batch=2, **kwargs):
    q = torch.randn(batch, *space, heads, head_dim, dtype=dtype, **kwargs)
    return q, *(torch.randn(batch, *space, heads_kv or heads, head_dim, dtype=dtype, **kwargs) for _ in range(2))


BAD = {
    "rank": ((Z(2, 6, 4), Z(2, 6, 4), Z(2, 6, 4), 3), {}, r"query has 3 axes \(\[2, 6, 4\]\); wanted 5 axes"),
    "rank of another": ((Z(2, 6, 6, 1, 4), Z(2, 6, 1, 4), Z(2, 6, 6, 1, 4), 3), {}, "key has 4 axes and query 5"),
    "not a tensor": ((Z(2, 6, 6, 1, 4), [1], Z(2, 6, 6, 1, 4), 3), {}, "key must be a tensor; got list"),
    "integers": ((Z(2, 6, 6, 1, 4).int(),) * 3 + (3,), {}, "query is torch.int32; wanted float32, bfloat16"),
    "eight bits": ((Z(2, 6, 6, 1, 4).to(torch.float8_e4m3fn),) * 3 + (3,), {}, "query is torch.float8_e4m3fn"),
    "sparse": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 4).to_sparse(), Z(2, 6, 6, 1, 4), 3), {}, "key has layout"),
    "dtypes": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 4).half(), 3), {}, "value is torch.float16 and"),
    "devices": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 4, device="meta"), Z(2, 6, 6, 1, 4), 3), {}, "key is on meta"),
    "batches": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 4), Z(3, 6, 6, 1, 4), 3), {}, "value has batch 3 and query 2"),
    "grids": ((Z(2, 6, 6, 1, 4), Z(2, 6, 5, 1, 4), Z(2, 6, 5, 1, 4), 3), {}, r"key has the grid \[6, 5\]"),
    "head sizes": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 1, 5), Z(2, 6, 6, 1, 5), 3), {}, "key has head size 5 and query 4"),
    "empty heads": ((Z(2, 6, 6, 1, 0),) * 3 + (3,), {}, "query has head size 0"),
    "no heads": ((Z(2, 6, 6, 1, 4), Z(2, 6, 6, 0, 4), Z(2, 6, 6, 0, 4), 3), {}, "key has no heads"),
    "heads": ((Z(2, 6, 6, 4, 4), Z(2, 6, 6, 3, 4), Z(2, 6, 6, 3, 4), 3), {}, "key has 3 heads, .* not divide"),
    "value heads": ((Z(2, 6, 6, 4, 4), Z(2, 6, 6, 2, 4), Z(2, 6, 6, 4, 4), 3), {}, "value is .* same tokens and heads"),
    "bool window": ((Z(2, 6, 6, 1, 4),) * 3 + (True,), {}, "kernel_size must be int .* got True"),
    "float window": ((Z(2, 6, 6, 1, 4),) * 3 + (3.0,), {}, "kernel_size must be int .* got 3.0"),
    "three windows": ((Z(2, 6, 6, 1, 4),) * 3 + ((3, 3, 3),), {}, r"kernel_size needs one value, or one for each of 2"),
    "no window": ((Z(2, 6, 6, 1, 4),) * 3 + (0,), {}, "kernel_size must be at least 1"),
    "large window": ((Z(2, 6, 6, 1, 4),) * 3 + (7,), {}, "kernel_size .* axis 0 has 6 tokens and 7 "),
    "dilated window": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"dilation": (1, 3)}, "axis 1 has 6 tokens and 3 . 3 = 9"),
    "large stride": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"stride": (1, 4)}, "stride .* axis 1 has stride 4, window 3"),
    "bool stride": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"stride": True}, "stride must be int"),
    "int causal": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"is_causal": 1}, "is_causal must be bool"),
    "scale": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"scale": float("nan")}, "scale must be a finite number .* got nan"),
    "bool scale": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"scale": True}, "scale must be a finite number"),
    "bias shape": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"rpb": Z(1, 5, 6)}, r"rpb is \[1, 5, 6\]; wanted .* \[1, 5, 5\]"),
    "bias of ints": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"rpb": Z(1, 5, 5).int()}, "rpb is torch.int32"),
    "bias elsewhere": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"rpb": Z(1, 5, 5, device="meta")}, "rpb is on meta"),
    "only keys": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"additional_keys": Z(2, 3, 1, 4)}, "additional_values is missing"),
    "only values": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"additional_values": Z(2, 3, 1, 4)}, "additional_keys is missing"),
    "additional batch": (
        (Z(2, 6, 6, 1, 4),) * 3 + (3,),
        {"additional_keys": Z(1, 3, 1, 4), "additional_values": Z(1, 3, 1, 4)},
        "additional_keys has batch 1 and query 2",
    ),
    "additional rank": (
        (Z(2, 6, 6, 1, 4),) * 3 + (3,),
        {"additional_keys": Z(2, 3, 3, 1, 4), "additional_values": Z(2, 3, 3, 1, 4)},
        "additional_keys has 5 axes",
    ),
    "additional heads": (
        (Z(2, 6, 6, 4, 4), Z(2, 6, 6, 2, 4), Z(2, 6, 6, 2, 4), 3),
        {"additional_keys": Z(2, 3, 1, 4), "additional_values": Z(2, 3, 1, 4)},
        "additional_keys has 1 heads of size 4; wanted 2 of size 4",
    ),
    "additional dtype": (
        (Z(2, 6, 6, 1, 4),) * 3 + (3,),
        {"additional_keys": Z(2, 3, 1, 4), "additional_values": Z(2, 3, 1, 4).half()},
        "additional_values is torch.float16",
    ),
    "backend": ((Z(2, 6, 6, 1, 4),) * 3 + (3,), {"backend": "flexx"}, "'flexx' is not known. Did you mean 'flex'"),
    "no such device": (
        (Z(2, 6, 6, 1, 4),) * 3 + (3,),
        {"backend": "triton"},
        "backend 'triton' does not run here: .*GPU.* These do: .*reference",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_a_call_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        na2d(*arguments, **options)


def test_nested_tensors_are_refused():
    nested = torch.nested.as_nested_tensor([Z(6, 1, 4), Z(5, 1, 4)], layout=torch.jagged)
    for call in (na1d, neighborhood_attention_generic, why_not):
        with pytest.raises(ValueError, match="query is a nested tensor"):
            call(nested, nested, nested, 3)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_function_wants_a_grid_of_its_own_rank(axes):
    wrong = Z(1, *([4] * (axes % 3 + 1)), 1, 4)
    with pytest.raises(ValueError, match=f"query has {wrong.dim()} axes .* wanted {axes + 3} axes"):
        (na1d, na2d, na3d)[axes - 1](wrong, wrong, wrong, 3)


def test_the_generic_function_takes_its_rank_from_the_query():
    for space in [(7,), (5, 4), (3, 4, 3)]:
        q, k, v = qkv(*space)
        named = (na1d, na2d, na3d)[len(space) - 1]
        assert torch.equal(neighborhood_attention_generic(q, k, v, 3), named(q, k, v, 3))
    with pytest.raises(ValueError, match=r"query has 7 axes .* wanted 4 to 6 axes"):
        neighborhood_attention_generic(*[Z(1, 2, 2, 2, 2, 1, 4)] * 3, 2)


def test_arguments_are_called_and_ordered_as_in_natten():
    wanted = ["query", "key", "value", "kernel_size", "stride", "dilation", "is_causal", "scale", "additional_keys",
              "additional_values", "attention_kwargs", "backend"]  # of natten 0.21.7  # fmt: skip
    for call in (na1d, na2d, na3d, neighborhood_attention_generic):
        assert list(inspect.signature(call).parameters)[: len(wanted)] == wanted


def test_natten_s_tile_arguments_are_taken_and_unknown_ones_are_not():
    q, k, v = qkv(6, 6)
    tiles = {"q_tile_shape": (8, 8), "kv_tile_shape": (8, 8), "run_persistent_kernel": False, "torch_compile": True}
    assert torch.equal(na2d(q, k, v, 3, **tiles), na2d(q, k, v, 3))
    with pytest.raises(TypeError, match=r"na2d.. got an unexpected keyword argument 'kernelsize'"):
        na2d(q, k, v, 3, kernelsize=3)
    with pytest.raises(TypeError, match=r"attention.. got an unexpected keyword argument 'causal'"):
        attention(q[:, 0], k[:, 0], v[:, 0], causal=True)
    assert attention(q[:, 0], k[:, 0], v[:, 0], q_tile_size=64).shape == q[:, 0].shape


def test_a_backend_of_natten_s_needs_natten():
    q, k, v = qkv(6, 6)
    if why_not(q, k, v, 3)["natten"] is None:
        pytest.skip("natten is installed")
    with pytest.raises(ValueError, match="backend 'natten' does not run here: natten is not installed"):
        na2d(q, k, v, 3, backend="cutlass-fna")


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
def test_tensors_need_not_be_contiguous(backend):
    packed = torch.randn(2, 3, 2, 6, 5, 8)  # [B, qkv, H, X, Y, D]
    q, k, v = packed.permute(1, 0, 3, 4, 2, 5)
    k = k.flip(1)
    out, lse = na2d(q, k, v, 3, return_lse=True, backend=backend)
    wanted = na2d(q.contiguous(), k.contiguous(), v.contiguous(), 3, return_lse=True, backend=backend)
    torch.testing.assert_close((out, lse), wanted)
    leaf = packed.clone().requires_grad_()
    q, k, v = leaf.permute(1, 0, 3, 4, 2, 5)
    na2d(q, k, v, 3, backend=backend).transpose(1, 2).pow(2).sum().backward()
    other = packed.clone().requires_grad_()
    na2d(*(x.contiguous() for x in other.permute(1, 0, 3, 4, 2, 5)), 3, backend="reference").pow(2).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 6, 2, 8), (2, 0, 2, 8), (2, 6, 0, 8)])
def test_nothing_in_gives_nothing_out_and_no_gradient(shape):
    q, k, v = (torch.zeros(shape, requires_grad=True) for _ in range(3))
    out, lse = na1d(q, k, v, 3, return_lse=True)
    assert out.shape == shape
    assert lse.shape == shape[:-1]
    (out.sum() + lse.sum()).backward()
    assert q.grad.shape == k.grad.shape == v.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_as_it_does_for_torch_s_own_attention(dtype):
    q, k, v = qkv(6, 5)
    extra = torch.randn(2, 2, 3, 2, 8)
    with torch.autocast("cpu", dtype):
        out, lse = na2d(q, k.to(dtype), v, 3, return_lse=True, rpb=torch.zeros(2, 5, 5))
        merged = na2d(q, k, v, 3, additional_keys=extra[0], additional_values=extra[1])
        whole = attention(*(x.flatten(1, 2) for x in (q, k, v)))
        doubles = na2d(*(x.double() for x in (q, k, v)), 3)
    assert out.dtype == merged.dtype == whole.dtype == dtype
    assert lse.dtype == torch.float32
    assert doubles.dtype == torch.float64
    torch.testing.assert_close(out, na2d(*(x.to(dtype) for x in (q, k, v)), 3))


def test_autocast_trains_a_layer_in_float32_weights():
    layer = NeighborhoodAttention2D(16, 2, 3, rel_pos_bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(2, 6, 5, 16))
    assert out.dtype == torch.bfloat16
    out.float().pow(2).mean().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}


def steps():
    """Calls that a graph must hold in one piece, each with its tensors."""
    q, k, v = qkv(6, 5, heads=4, heads_kv=2)
    extra = torch.randn(2, 2, 7, 2, 8)
    return {
        "plain": (lambda q, k, v: na2d(q, k, v, 3), (q, k, v)),
        "named": (lambda q, k, v: na2d(q, k, v, 3, backend="cpu"), (q, k, v)),
        "logsumexp": (lambda q, k, v: na2d(q, k, v, (3, 2), 2, is_causal=(True, False), return_lse=True), (q, k, v)),
        "bias": (lambda q, k, v, rpb: na2d(q, k, v, 3, dilation=(2, 1), rpb=rpb), (q, k, v, torch.randn(4, 5, 5))),
        "additional": (
            lambda q, k, v, ak, av: na2d(q, k, v, 3, additional_keys=ak, additional_values=av),
            (q, k, v, *extra),
        ),
        "dense": (lambda q, k, v: attention(q, k, v, return_lse=True), tuple(x.flatten(1, 2) for x in (q, k, v))),
    }  # fmt: skip


def compare_compiled(compiled, eager, tensors):
    results = []
    for call in (compiled, eager):
        leaves = [x.clone().requires_grad_() for x in tensors]
        outputs = call(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum(out.pow(2).sum() for out in outputs)
        results.append((outputs, torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "named", "logsumexp", "bias", "additional", "dense"])
def test_a_compiled_call_is_one_graph_with_the_same_result_and_gradients(name):
    call, tensors = steps()[name]
    if name == "named" and why_not(*tensors, 3)["cpu"] is not None:
        pytest.skip("no native kernels here")
    torch._dynamo.reset()
    compare_compiled(torch.compile(call, backend="aot_eager", fullgraph=True), call, tensors)


def test_a_compiled_layer_takes_grids_of_any_size_without_a_new_graph_for_each():
    layer = NeighborhoodAttention2D(16, 2, 3, rel_pos_bias=True)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    compiled(torch.randn(2, 5, 8, 16))
    graphs = counter.frame_count
    for side in (6, 7, 9):
        x = torch.randn(2, side, 8, 16)
        torch.testing.assert_close(compiled(x), layer(x))
    assert counter.frame_count == graphs


@pytest.mark.compile
@pytest.mark.parametrize("name", ["plain", "additional"])
def test_inductor_compiles_it_too(name):
    call, tensors = steps()[name]
    torch._dynamo.reset()
    compare_compiled(torch.compile(call, fullgraph=True), call, tensors)


@pytest.mark.parametrize(("tokens", "others"), [(9, 9), (5, 12), (12, 5), (4, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_dense_attention_is_torch_s_with_the_logsumexp_of_the_scores(tokens, others, is_causal):
    q = torch.randn(2, tokens, 4, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, others, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    out, lse = attention(q, k, v, is_causal=is_causal, return_lse=True)
    score = torch.einsum("blhd,bmhd->bhlm", q, k.repeat_interleave(2, 2)) * 8**-0.5
    if is_causal:
        score = score.masked_fill(torch.ones(tokens, others, dtype=torch.bool).triu(1), -torch.inf)
    torch.testing.assert_close(lse, score.logsumexp(-1).transpose(1, 2))
    wanted = torch.einsum("bhlm,bmhd->blhd", score.softmax(-1), v.repeat_interleave(2, 2))
    torch.testing.assert_close(out, wanted)
    if others:
        torch.testing.assert_close(attention(q, k, v, is_causal=is_causal), wanted)
    grads = (torch.randn_like(out), torch.randn_like(lse))
    torch.testing.assert_close(
        torch.autograd.grad((out, lse), (q, k, v), grads, allow_unused=True, materialize_grads=True),
        torch.autograd.grad((wanted, score.logsumexp(-1).transpose(1, 2)), (q, k, v), grads, materialize_grads=True),
    )


@pytest.mark.parametrize("is_causal", [False, True])
def test_scores_too_large_to_hold_are_computed_in_chunks_and_again_for_the_gradient(is_causal):
    q = torch.randn(1, 300, 64, 4, requires_grad=True)
    k, v = (torch.randn(1, 2000, 64, 4, requires_grad=True) for _ in range(2))  # 150 MB of scores; 64 MiB at a time
    out, _ = attention(q, k, v, is_causal, return_lse=True)
    wanted = attention(q, k, v, is_causal)
    torch.testing.assert_close(out, wanted)
    got, correct = (torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (out, wanted))
    torch.testing.assert_close(got, correct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_causal": 1}, "is_causal must be a bool; got 1"),
        ({"scale": float("inf")}, "scale must be a finite number"),
        ({"seqlens_Q": torch.tensor([3, 3])}, "seqlens_Q: packed sequences are not for this function"),
    ],
)
def test_bad_options_of_dense_attention_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attention(Z(2, 6, 2, 4), Z(2, 6, 2, 4), Z(2, 6, 2, 4), **options)
    with pytest.raises(ValueError, match=r"query has 5 axes .* wanted \[batch, tokens, heads, head_dim\]"):
        attention(*[Z(2, 6, 6, 2, 4)] * 3)


def test_layers_survive_a_pickle_and_a_deep_model():
    model = nn.Sequential(NeighborhoodAttention2D(16, 2, 3), NeighborhoodAttention2D(16, 4, (3, 5), dilation=(2, 1)))
    x = torch.randn(1, 7, 6, 16)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), model(x))
