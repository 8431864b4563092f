"""The kernels that can be chosen: one real operator each, in every class, on inputs that can be made."""

import collections

import pytest
import torch

from gnomon.measure.probes.pool import Input, pool
from gnomon.workload.capture import capture

POOL = pool()


@pytest.fixture(scope="module")
def graphs():
    return {name: capture(one.function, [i.allocate() for i in one.inputs], name=name) for name, one in POOL.items()}


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
        outputs = POOL[name].function(*inputs)
        for one in outputs if isinstance(outputs, list | tuple) else [outputs]:
            assert one is None or one.isfinite().all()


def test_values_have_both_signs_or_are_positive_and_indices_stay_below():
    both, above = Input((1000,)).make("cpu"), Input((1000,), positive=True).make("cpu")
    assert both.min() < 0 < both.max()
    assert above.min() > 0
    index = Input((1000,), below=7).make("cpu")
    assert (index.dtype, int(index.min()), int(index.max())) == (torch.int64, 0, 6)


def test_a_long_tensor_repeats_a_pattern_and_a_swapped_one_is_strided():
    assert Input((2**18 + 5,)).make("cpu")[2**18 :].tolist() != [0.0] * 5
    for one in (Input((8, 4), swapped=(0, 1)).make("cpu"), Input((8, 4), swapped=(0, 1)).allocate()):
        assert (tuple(one.shape), one.is_contiguous()) == ((4, 8), False)
