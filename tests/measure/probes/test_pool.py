"""The kernels that can be chosen: one real operator each, in every class, on inputs that can be made."""

import collections

import pytest
import torch

from gnomon.forecast.work import works
from gnomon.measure.probes.pool import Input, pool
from gnomon.workload.capture import capture

POOL = pool()


@pytest.fixture(scope="module")
def graphs():
    return {name: capture(one, [i.allocate() for i in one.inputs], name=name) for name, one in POOL.items()}


def test_every_probe_is_one_operator_that_a_cost_rule_knows(graphs):
    for name, graph in graphs.items():
        (op,) = (op for op in graph.ops if op.category != "view")
        assert op.flop is not None, name


def test_every_class_of_operator_has_probes_of_sizes_far_apart(graphs):
    moved = collections.defaultdict(list)
    for graph in graphs.values():
        (op,) = (op for op in graph.ops if op.category != "view")
        moved[op.category].append(op.moved_bytes)
    wanted = {"matmul", "convolution", "attention", "normalization", "softmax", "elementwise", "reduction", "gather",
              "copy", "random", "pooling", "sort"}  # fmt: skip
    assert set(moved) == wanted
    for category, sizes in moved.items():
        assert max(sizes) > 30 * min(sizes), category


def test_a_gpu_is_not_asked_for_operators_that_only_a_cpu_has():
    left_out = set(POOL) - set(pool("cuda"))
    assert left_out == {name for name in POOL if name.startswith("attention backward")}


def test_some_outputs_are_large_enough_for_the_system_to_map_them(graphs):
    assert any(op.written_bytes >= 2**25 for graph in graphs.values() for op in graph.ops)


@pytest.mark.parametrize("name", [name for i, name in enumerate(sorted(POOL)) if i % 12 == 0])
def test_a_probe_runs_on_the_inputs_that_it_makes(name):
    inputs = [one.make("cpu") for one in POOL[name].inputs]
    if sum(x.nbytes for x in inputs) < 2**22:
        outputs = POOL[name](*inputs)
        for one in outputs if isinstance(outputs, list | tuple) else [outputs]:
            assert one is None or one.isfinite().all()


def test_values_have_both_signs_or_are_positive_and_indices_stay_below():
    both, above = Input((1000,)).make("cpu"), Input((1000,), positive=True).make("cpu")
    assert both.min() < 0 < both.max()
    assert above.min() > 0
    index = Input((1000,), below=7).make("cpu")
    assert (index.dtype, int(index.min()), int(index.max())) == (torch.int64, 0, 6)


def test_a_long_tensor_repeats_a_pattern():
    values = Input((2**18 + 5,)).make("cpu")
    assert values[2**18 :].tolist() == values[:5].tolist() != [0.0] * 5


def test_swapped_axes_are_exchanged_by_the_call_so_that_a_forecast_sees_it(graphs):
    transposed, plain = (graphs[f"mm {name}512x1024x256"] for name in ("transposed right ", ""))
    assert [op.name for op in transposed.ops] == ["aten.transpose.int", "aten.mm.default"]
    assert [op.name for op in plain.ops] == ["aten.mm.default"]
    (torn,) = (w for w in works(graphs["add of two orders 4x128x1024"]) if w.category != "view")
    (whole,) = (w for w in works(graphs["contiguous heads 4x256x16x64"]) if w.category != "view")
    assert (torn.strided_bytes, whole.strided_bytes) == (4.0 * 4 * 128 * 1024, 0)
