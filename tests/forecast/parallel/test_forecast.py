import itertools
from dataclasses import replace

import pytest

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.forecast.parallel import Parallel, forecast_parallel
from gnomon.forecast.parallel.data import parameter_buckets
from gnomon.forecast.predict import forecast
from gnomon.forecast.record import Forecast
from gnomon.workload.graph import OpGraph
from gnomon.workload.memory import peak

from ..build import device
from .build import language

GPU = device(link_b_s=300e9, pcie_b_s=32e9, network_b_s=25e9, node_size=8.0)
LARGE = {
    "layers": 4,
    "hidden": 1024,
    "heads": 16,
    "size": 64,
    "width": 4096,
    "vocabulary": 4096,
    "batch": 8,
    "tokens": 256,
}
MANY = [
    Parallel(tensor=2), Parallel(data=8), Parallel(data=16, zero=1), Parallel(data=4, zero=2), Parallel(data=4, zero=3),
    Parallel(pipeline=2, micro_batches=4), Parallel(pipeline=2, micro_batches=4, schedule="gpipe"),
    Parallel(tensor=2, pipeline=2, data=2, micro_batches=2, zero=1), Parallel(micro_batches=4),
]  # fmt: skip


def large():
    return language("training", **LARGE)


def spread(**degrees):
    return forecast_parallel(large(), GPU, Parallel(**degrees))


def moved(result, *kinds):
    """Bytes on each device's links, from the times at which a link without latency would carry them."""
    return sum(op.time.value_s for op in result.ops if op.name.removeprefix("gnomon.") in kinds)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_one_device_has_the_plain_forecast(mode, dtype):
    plain = forecast(language(mode), GPU, dtype=dtype, batch=4, dims={"B": 4})
    assert forecast_parallel(language(mode), GPU, Parallel(), dtype=dtype, batch=4, dims={"B": 4}) == plain


@pytest.mark.parametrize("parallel", MANY, ids=str)
def test_a_forecast_of_several_devices_holds_together_and_survives_the_store(parallel):
    result = forecast_parallel(large(), GPU, parallel, dtype="bfloat16")
    total = result.total
    assert 0 < total.low_s <= total.value_s <= total.high_s
    assert sum(result.bound_shares.values()) == pytest.approx(1)
    assert 0 < result.mfu < 1
    assert result.flop == large().flop * parallel.data
    assert result.parallel["devices"] == parallel.devices
    assert [op.index for op in result.ops] == list(range(len(result.ops)))
    assert {op.bound for op in result.ops if op.category == "collective"} <= {"communication"}
    assert from_json(to_json(result), Forecast) == result


@pytest.mark.parametrize("parallel", MANY, ids=str)
@pytest.mark.parametrize("field", ["link_b_s", "network_b_s"])
def test_more_bandwidth_never_slows(parallel, field):
    faster = replace(GPU, **{field: replace(getattr(GPU, field), value=2 * getattr(GPU, field).value)})
    slow, fast = (forecast_parallel(large(), gpu, parallel).total for gpu in (GPU, faster))
    assert (fast.low_s, fast.value_s, fast.high_s) <= (slow.low_s, slow.value_s, slow.high_s)


def test_replicas_on_a_perfect_link_cost_what_one_costs_but_the_start_of_the_last_bucket():
    perfect = replace(GPU, link_b_s=replace(GPU.link_b_s, value=1e14))
    plain, spread = (forecast_parallel(large(), perfect, Parallel(data=d)).total.value_s for d in (1, 8))
    assert 0 <= spread - plain < 0.02 * plain


def test_tensor_parallelism_divides_memory_and_time_but_not_wholly():
    one, two, four = (spread(tensor=t) for t in (1, 2, 4))
    assert one.total.value_s > two.total.value_s > four.total.value_s
    assert two.total.value_s > one.total.value_s / 2
    assert one.peak_memory_bytes / 2 < two.peak_memory_bytes < one.peak_memory_bytes


def test_an_equal_pipeline_is_idle_as_the_textbook_has_it():
    # the cut is as even as its operators allow; what is left is the bubble (p - 1) / (m + p - 1)
    result = spread(pipeline=4, micro_batches=8)
    assert result.parallel["idle_s"] / result.total.value_s == pytest.approx(3 / 11, abs=0.12)
    more = spread(pipeline=4, micro_batches=4)
    assert more.parallel["idle_s"] / more.total.value_s > result.parallel["idle_s"] / result.total.value_s


def test_gpipe_takes_as_long_as_1f1b_and_more_memory():
    gpipe, f1b = (spread(pipeline=2, micro_batches=8, schedule=s) for s in ("gpipe", "1f1b"))
    assert gpipe.total.value_s == pytest.approx(f1b.total.value_s, rel=0.05)
    assert gpipe.peak_memory_bytes > 1.2 * f1b.peak_memory_bytes


def test_accumulating_gradients_takes_less_memory_and_a_little_more_time():
    whole, parts = spread(), spread(micro_batches=4)
    assert whole.total.value_s < parts.total.value_s < 1.6 * whole.total.value_s
    assert parts.peak_memory_bytes < whole.peak_memory_bytes


def held(graph, role):
    return sum(s.bytes for s in graph.storages if s.role == role)


@pytest.mark.parametrize("data", [2, 8])
def test_zero_divides_what_its_stage_says(data):
    graph = language("training", **{**LARGE, "batch": 1, "tokens": 8})  # hardly any activations
    memory = [forecast_parallel(graph, GPU, Parallel(data=data, zero=zero)).peak_memory_bytes for zero in range(4)]
    assert memory[0] == peak(graph).peak_bytes
    saved = [before - after for before, after in itertools.pairwise(memory)]
    share, bucket = 1 - 1 / data, 25e6 + 4 * 4096 * 1024  # a bucket is closed by what passes 25 MB
    assert saved[0] == pytest.approx(held(graph, "optimizer_state") * share, rel=0.001)
    assert held(graph, "gradient") * share - 1.1 * bucket < saved[1] < held(graph, "gradient") * share
    assert held(graph, "parameter") * share - 2.1 * bucket < saved[2] < held(graph, "parameter") * share


def test_sharing_more_never_takes_more_memory():
    memory = [spread(data=2, zero=zero).peak_memory_bytes for zero in range(4)]
    assert memory == sorted(memory, reverse=True)


def test_nothing_takes_no_time_on_any_number_of_devices():
    nothing = OpGraph("nothing", "inference", (), (), 0)
    assert forecast_parallel(nothing, GPU, Parallel(tensor=2, data=4)).total.value_s == 0


def test_fully_sharded_replicas_move_half_as_much_again():
    slow = replace(GPU, link_b_s=replace(GPU.link_b_s, value=1e9), pcie_b_s=replace(GPU.pcie_b_s, value=1e8))
    ddp, sharded = (forecast_parallel(large(), slow, Parallel(data=8, zero=z)) for z in (0, 3))
    reduced = moved(ddp, "all_reduce")
    # forward gathers all; backward has no use for the embedding's table and the biases; gradients are scattered
    again = sum(b.bytes for b in parameter_buckets(large(), "backward"))
    expected = (held(large(), "parameter") + again + held(large(), "gradient")) / (2 * held(large(), "gradient"))
    assert 1.45 < expected < 1.5
    assert moved(sharded, "all_gather", "reduce_scatter") / reduced == pytest.approx(expected, rel=0.005)
    first = forecast_parallel(large(), slow, Parallel(data=8, zero=1))
    assert moved(first, "all_gather", "reduce_scatter") / reduced == pytest.approx(1.0, rel=0.005)


def test_updates_are_shared_too():
    def updates(result):
        return sum(op.time.value_s for op in result.ops if op.phase == "optimizer" and op.category != "collective")

    assert updates(spread(data=8, zero=1)) < 0.5 * updates(spread(data=8))


def test_a_slow_link_leaves_gradients_that_nothing_hides():
    slow = replace(GPU, link_b_s=replace(GPU.link_b_s, value=1e9), pcie_b_s=replace(GPU.pcie_b_s, value=1e8))
    fast, exposed = (forecast_parallel(large(), gpu, Parallel(data=8)) for gpu in (GPU, slow))
    assert exposed.bound == "communication"
    assert exposed.parallel["communication_s"] > 10 * fast.parallel["communication_s"]
    assert exposed.total.value_s > 2 * 7 / 8 * held(large(), "gradient") / 1e9


def test_half_precision_halves_what_is_sent():
    single, half = (forecast_parallel(large(), GPU, Parallel(data=8), dtype=d) for d in (None, "bfloat16"))
    assert moved(half, "all_reduce") == pytest.approx(moved(single, "all_reduce") / 2, rel=0.35)


def test_inference_replicas_do_not_talk_and_stages_send_activations():
    graph = language(**LARGE)
    assert not [op for op in forecast_parallel(graph, GPU, Parallel(data=8)).ops if op.category == "collective"]
    piped = forecast_parallel(graph, GPU, Parallel(pipeline=2, micro_batches=2))
    assert {op.name for op in piped.ops if op.category == "collective"} == {"gnomon.send"}


def test_a_device_without_a_node_size_is_told_about_and_one_without_a_network_stops_at_the_node():
    plain = device(link_b_s=300e9)
    result = forecast_parallel(language("training"), plain, Parallel(data=8))
    assert "round states no node_size; nodes of 8 devices are assumed" in result.warnings
    with pytest.raises(UsageError, match="round states no network_b_s"):
        forecast_parallel(language("training"), plain, Parallel(data=16))


def test_a_model_that_fits_no_device_fits_several():
    small = device(link_b_s=300e9, memory_bytes=0.6 * spread().peak_memory_bytes)
    assert not forecast_parallel(large(), small, Parallel()).fits
    assert any(
        w.startswith("does not fit: needs") for w in forecast_parallel(large(), small, Parallel(data=2)).warnings
    )
    assert forecast_parallel(large(), small, Parallel(tensor=4)).fits


def test_what_stays_whole_is_told():
    result = forecast_parallel(language("training", vocabulary=33), GPU, Parallel(tensor=2))
    assert "tensor parallel: head left whole: 2 does not divide 33" in result.warnings


@pytest.mark.parametrize(("degrees", "message"), [
    ({"tensor": 5}, "degree of 5 divides none"),
    ({"micro_batches": 3}, "3 micro-batches do not divide the batch of 4"),
    ({"pipeline": 1000}, "1000 pipeline stages need as many operators"),
])  # fmt: skip
def test_degrees_that_do_not_divide_are_named(degrees, message):
    with pytest.raises(UsageError, match=message):
        forecast_parallel(language("training"), GPU, Parallel(**degrees))
