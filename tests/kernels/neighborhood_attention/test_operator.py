import pytest
import torch

from gnomon.kernels.neighborhood_attention.operator import attend
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.reference import backward, neighborhood_attention

WINDOWS = {
    "one axis": Problem.of((9,), 4, stride=3, dilation=2),
    "one causal axis": Problem.of((7,), 3, stride=2, is_causal=True),
    "two axes": Problem.of((5, 7), (3, 2), dilation=(1, 3)),
    "three axes": Problem.of((2, 3, 4), (2, 3, 2), stride=(1, 2, 1), is_causal=(True, False, False)),
}


def inputs(problem, dtype, heads=2, kv_heads=1, size=3, bias=True, batch=2):
    q = torch.randn(batch, *problem.space, heads, size, dtype=dtype)
    k, v = torch.randn(2, batch, *problem.space, kv_heads, size, dtype=dtype)
    rpb = torch.randn(heads, *(2 * w - 1 for w in problem.kernel_size), dtype=dtype) if bias else None
    return [x if x is None else x.requires_grad_() for x in (q, k, v, rpb)]


@pytest.mark.parametrize("problem", WINDOWS.values(), ids=WINDOWS)
def test_the_written_gradient_is_autograds_with_the_logsumexp_used_downstream(problem):
    q, k, v, rpb = inputs(problem, torch.float64)
    out, lse = neighborhood_attention(q, k, v, problem, 0.4, rpb)
    grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
    wanted = torch.autograd.grad([out, lse], [q, k, v, rpb], [grad_out, grad_lse])
    with torch.no_grad():
        got = backward(grad_out, grad_lse, q, k, v, out, lse, problem, 0.4, rpb)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("problem", WINDOWS.values(), ids=WINDOWS)
def test_the_operator_passes_gradcheck_through_both_outputs(problem):
    q, k, v, rpb = inputs(problem, torch.float64, size=2, batch=1)
    assert torch.autograd.gradcheck(lambda q, k, v, rpb: attend(q, k, v, problem, 0.7, rpb), (q, k, v, rpb))


@pytest.mark.parametrize(
    ("dtype", "bias"), [(torch.float32, False), (torch.float32, True), (torch.float64, True), (torch.bfloat16, False)]
)
def test_the_operators_pass_opcheck(dtype, bias):
    problem = WINDOWS["two axes"]
    q, k, v, rpb = inputs(problem, dtype, bias=bias)
    window = (list(problem.kernel_size), list(problem.stride), list(problem.dilation), list(problem.is_causal), 0.5)
    torch.library.opcheck(torch.ops.gnomon.neighborhood_attention.default, (q, k, v, *window, rpb))
    q, k, v, rpb = (x if x is None else x.detach() for x in (q, k, v, rpb))
    out, lse = attend(q, k, v, problem, 0.5, rpb)
    for grad_lse in (None, torch.randn_like(lse)):
        given = (torch.randn_like(out), grad_lse, q, k, v, out, lse, *window, rpb)
        torch.library.opcheck(torch.ops.gnomon.neighborhood_attention_backward.default, given)


def test_either_output_alone_trains():
    problem = WINDOWS["one axis"]
    q, k, v, rpb = inputs(problem, torch.float64)
    for which in (0, 1):
        got = torch.autograd.grad(attend(q, k, v, problem, 1.0, rpb)[which].sum(), [q, k, rpb])
        wanted = torch.autograd.grad(neighborhood_attention(q, k, v, problem, 1.0, rpb)[which].sum(), [q, k, rpb])
        torch.testing.assert_close(got, wanted)


def test_a_second_derivative_is_refused():
    problem = WINDOWS["one axis"]
    q, k, v, _ = inputs(problem, torch.float64, bias=False)
    (dq,) = torch.autograd.grad(attend(q, k, v, problem, 1.0)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        dq.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[:, 1:], k[:, 1:], v[:, 1:]), r"q has the grid \[4, 7\]; the problem is on \[5, 7\]"),
        (lambda q, k, v: (q, k.half(), v), "k is torch.float16 and q is torch.float32"),
        (lambda q, k, v: (q.int(), k, v), "q is torch.int32; wanted float32"),
        (lambda q, k, v: (q, k, v[:, :-1]), "v is .* wanted the same tokens and heads"),
        (lambda q, k, v: (q, k[:, 1:], v[:, 1:]), r"k has the grid \[4, 7\] and q \[5, 7\]"),
        (lambda q, k, v: (q, k[..., :2], v), "k has head size 2 and q 4"),
        (lambda q, k, v: (q, k, v[..., :2]), "v has head size 2 and q 4"),
        (lambda q, k, v: (q, k, v[..., :1, :]), "v is .* wanted the same tokens and heads"),
        (lambda q, k, v: (q[..., :1, :], k, v), "k has 2 heads, which do not divide the 1 heads of q"),
        (lambda q, k, v: (q[..., :0], k[..., :0], v[..., :0]), "q has head size 0"),
    ],
)
def test_tensors_that_do_not_fit_raise_and_name_the_argument(change, message):
    q, k, v = torch.randn(3, 1, 5, 7, 2, 4)
    with pytest.raises(ValueError, match=message):
        attend(*change(q, k, v), WINDOWS["two axes"], 1.0)


def test_a_bias_table_of_another_size_raises():
    q, k, v = torch.randn(3, 1, 5, 7, 2, 4)
    with pytest.raises(ValueError, match=r"rpb is \[2, 5, 5\]; wanted .* = \[2, 5, 3\]"):
        attend(q, k, v, WINDOWS["two axes"], 1.0, torch.zeros(2, 5, 5))


def test_the_bare_operator_checks_too():
    q, k, v = torch.randn(3, 1, 5, 7, 2, 4)
    call = torch.ops.gnomon.neighborhood_attention
    with pytest.raises(ValueError, match="kernel_size \\* dilation must fit"):
        call(q, k, v, [3, 9], [1, 1], [1, 1], [False, False], 1.0, None)
    with pytest.raises(ValueError, match="wanted the same tokens and heads"):
        call(q, k[:, 1:], v, [3, 3], [1, 1], [1, 1], [False, False], 1.0, None)


@pytest.mark.parametrize("shape", [(0, 5, 7, 2, 4), (2, 0, 7, 2, 4), (2, 5, 7, 0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_in_gives_nothing_out(shape, dtype):
    q, k, v = torch.randn(3, *shape, dtype=dtype).requires_grad_()
    problem = Problem.of(shape[1:3], (3, 2), dilation=(1, 3))
    out, lse = attend(q, k, v, problem, 1.0)
    assert out.shape == shape
    assert lse.shape == shape[:-1]
    assert [g.shape for g in torch.autograd.grad(out.sum() + lse.sum(), [q, k, v])] == [torch.Size(shape)] * 3
