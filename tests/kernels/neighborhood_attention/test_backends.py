import dataclasses
import importlib.util
import json

import pytest
import torch

from gnomon.core.paths import home
from gnomon.kernels.neighborhood_attention import Case, Problem, backends, na1d, na2d, why_not
from gnomon.kernels.neighborhood_attention.backends import BACKENDS, measured
from gnomon.kernels.neighborhood_attention.backends.backend import free_bytes, why_no_room

from .oracle import Call

CASE = Case(Problem.of((32, 32), 7), 4, 4, 4, 32, 32, torch.float32, "cpu")


@pytest.fixture(autouse=True)
def _choose_anew():
    """What one test measures, another must not go by."""
    backends.forget()
    yield
    backends.forget()


def change(**fields):
    return dataclasses.replace(CASE, **fields)


def test_a_case_is_read_from_the_tensors_of_a_call():
    q = torch.zeros(2, 5, 6, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    kv = torch.zeros(2, 5, 6, 2, 8, dtype=torch.bfloat16)
    problem, table = Problem.of((5, 6), 3), torch.zeros(4, 5, 5)
    case = Case.of(q, kv, kv, problem, table, True)
    assert case == Case(problem, 2, 4, 2, 8, 8, torch.bfloat16, "cpu", True, True, True)
    with torch.no_grad():
        assert not Case.of(q, kv, kv, problem, None, False).needs_grad
    assert Case.of(kv, kv, kv, problem, table.requires_grad_(), False).needs_grad


def test_pairs_and_bytes_of_a_case_are_counted():
    assert CASE.pairs == 16 * 1024 * 49
    assert CASE.dense_pairs == 16 * 1024**2
    assert CASE.operands_bytes == 4 * (4 * 1024 * 4 * 32) * 4
    assert CASE.flop(10) == 10 * 2 * 64
    assert change(needs_grad=True).flop(10) == pytest.approx(3.5 * CASE.flop(10))


REFUSALS = {
    "cpu": [
        ({"device": "cuda"}, "its kernels are for CPUs; the tensors are on cuda"),
        ({"dtype": torch.float64}, "its kernels compute in float32"),
        ({"head_dim_v": 16}, "one head size for keys and values; got 32 and 16"),
    ],
    "triton": [({}, "run on a GPU; the tensors are on cpu")],
    "flex": [
        ({"device": "meta"}, "no kernels for meta"),
        ({"dtype": torch.float64}, "does not compute in float64"),
        ({"needs_grad": True}, "does not train on a CPU"),
        ({"needs_lse": True}, "returns no logsumexp on a CPU"),
        ({"device": "cuda", "head_dim": 8}, "at least 16 on a GPU; it is 8"),
    ],
}


@pytest.mark.parametrize(("name", "fields", "reason"), [(n, *row) for n, rows in REFUSALS.items() for row in rows])
def test_each_backend_says_what_it_cannot_do(name, fields, reason):
    assert reason in BACKENDS[name].why_not(change(**fields))


def test_a_backend_whose_scores_have_no_room_is_refused_before_it_tries():
    large = change(problem=Problem.of((2**20,), 255), needs_lse=True)
    for name in ("reference", "sdpa"):
        assert "GiB free" in BACKENDS[name].why_not(large)
    assert BACKENDS["cpu"].memory_bytes(large) < 2 * large.operands_bytes
    assert why_no_room(2**30, "cpu", free=lambda device: 2**29) == "its scores need 1.0 GiB and cpu has 0.5 GiB free"
    assert why_no_room(2**30, "cpu", free=lambda device: 2**30) is None
    assert why_no_room(2**60, "somewhere", free=lambda device: None) is None
    assert free_bytes("somewhere") is None
    assert free_bytes("cpu") > 2**20


def test_reasons_name_every_backend_and_why_not_shows_them_for_a_call():
    q = torch.zeros(1, 8, 2, 8)
    shown = why_not(q, q, q, 3)
    assert list(shown) == ["cpu", "triton", "sdpa", "flex", "natten", "reference"]
    assert shown["reference"] is None
    assert shown["triton"] is not None
    assert "train" in why_not(q.clone().requires_grad_(), q, q, 3)["flex"]


@pytest.mark.skipif(BACKENDS["cpu"].why_not(CASE) is not None, reason="no native kernels here")
def test_by_estimate_small_windows_run_on_our_kernels_and_whole_grids_on_torch_s():
    assert backends.chosen(CASE).name == "cpu"
    assert backends.chosen(change(needs_grad=True)).name == "cpu"
    assert backends.chosen(change(problem=Problem.of((32, 32), 32))).name == "sdpa"


def test_a_measurement_of_exactly_this_case_wins_over_the_estimate():
    slow_first = backends.chosen(CASE).name
    measured.keep(CASE, {"reference": 1e-9, slow_first: 1.0, "triton": 1e-12})  # triton cannot run here
    backends.forget()
    assert backends.chosen(CASE).name == "reference"
    assert backends.chosen(change(batch=5)).name == slow_first


def test_what_was_measured_elsewhere_or_with_other_versions_counts_for_nothing():
    path = measured.keep(CASE, {"reference": 1e-9})
    document = json.loads(path.read_text())
    environment = measured.environment("cpu")
    document["environments"] = {"another machine": document["environments"][environment]}
    path.write_text(json.dumps(document))
    measured.forget()
    assert not measured.times(CASE)


def test_measurements_of_several_cases_are_kept_side_by_side():
    other = change(needs_grad=True)
    measured.keep(CASE, {"cpu": 1.0})
    measured.keep(other, {"cpu": 2.0, "sdpa": 3.0})
    measured.forget()
    assert measured.times(CASE) == {"cpu": 1.0}
    assert measured.times(other) == {"cpu": 2.0, "sdpa": 3.0}


def test_no_two_cases_share_a_key():
    problem = Problem.of((12, 12), (3, 2), (2, 1), (1, 2), (False, True))
    fields = [{}, {"batch": 5}, {"heads": 8}, {"heads_kv": 2}, {"head_dim": 16}, {"head_dim_v": 16}, {"device": "cuda"},
              {"dtype": torch.float16}, {"needs_grad": True}, {"needs_lse": True}, {"has_bias": True},
              {"problem": problem}, {"problem": dataclasses.replace(problem, stride=(1, 1))},
              {"problem": dataclasses.replace(problem, dilation=(1, 1))},
              {"problem": dataclasses.replace(problem, is_causal=(True, True))}]  # fmt: skip
    keys = {measured.case_key(change(**changes)) for changes in fields}
    assert len(keys) == len(fields)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 1}', '{"version": 1, "environments": {"a": {"b": {"c": "x"}}}}']
)
def test_a_damaged_file_of_measurements_is_said_once_and_estimates_are_used(text):
    (home() / "neighborhood-attention-measured.json").write_text(text)
    with pytest.warns(RuntimeWarning, match=r"measured.json cannot be read .* delete it and profile again"):
        assert not measured.times(CASE)
    assert not measured.times(CASE)


def test_measurements_in_a_later_format_are_left_alone():
    (home() / "neighborhood-attention-measured.json").write_text('{"version": 99}')
    assert not measured.times(CASE)


def test_where_none_can_run_every_reason_is_given():
    with pytest.raises(ValueError, match=r"backend: none can run this call. cpu: .*; triton: .*; sdpa: .*GiB"):
        backends.chosen(change(problem=Problem.of((2**20,), 255), dtype=torch.float64))


def test_a_whole_causal_sequence_needs_no_mask_with_torch_s_attention():
    causal = change(problem=Problem.of((64,), 64, is_causal=True))
    assert BACKENDS["sdpa"].memory_bytes(causal) == 0
    assert BACKENDS["sdpa"].memory_bytes(change(problem=Problem.of((64,), 64))) == 0
    assert BACKENDS["sdpa"].memory_bytes(change(problem=Problem.of((64,), 32))) == 64**2
    q = torch.randn(2, 64, 2, 8)
    for options in ({"is_causal": True}, {"is_causal": True, "stride": 3}, {}):
        got = na1d(q, q, q, 64, **options, return_lse=True, backend="sdpa")
        torch.testing.assert_close(got, na1d(q, q, q, 64, **options, return_lse=True, backend="reference"))


def test_values_may_have_a_head_size_of_their_own_where_a_backend_takes_it():
    q, v = torch.randn(1, 6, 5, 2, 8), torch.randn(1, 6, 5, 2, 3)
    out = na2d(q, q, v, 3)
    assert out.shape == (1, 6, 5, 2, 3)
    torch.testing.assert_close(out, na2d(q, q, torch.nn.functional.pad(v, (0, 5)), 3)[..., :3])


FLEX = [
    Call((150,), (33,), (1,), (2,), (False,), 2, 4, 2, 16, 0.3, False, torch.float32),
    Call((12, 13), (5, 4), (2, 1), (1, 3), (True, False), 1, 2, 2, 32, 0.2, True, torch.float32),
]


@pytest.mark.compile
@pytest.mark.parametrize("call", FLEX)
def test_flex_attention_computes_the_same(call):
    t = call.tensors()
    function = na1d if len(call.space) == 1 else na2d
    arguments = {**call.window, "scale": call.scale, "rpb": t.rpb}
    torch.testing.assert_close(
        function(t.q, t.k, t.v, **arguments, backend="flex"),
        function(t.q, t.k, t.v, **arguments, backend="reference"),
    )


@pytest.mark.skipif(importlib.util.find_spec("natten") is None, reason="natten is not installed")
@pytest.mark.filterwarnings("ignore")
def test_natten_where_it_is_installed_computes_the_same():
    q, k, v = torch.randn(3, 2, 9, 8, 2, 32)
    for window in ({"kernel_size": 3}, {"kernel_size": (4, 3), "stride": (2, 1), "dilation": (1, 2)}):
        got = na2d(q, k, v, **window, return_lse=True, backend="natten")
        torch.testing.assert_close(got, na2d(q, k, v, **window, return_lse=True, backend="reference"))
