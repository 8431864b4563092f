"""The accelerator: what its cycles, traffic and energy must obey whatever the sizes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.kernels.detected_attention.accelerator import masks
from gnomon.kernels.detected_attention.accelerator.attention import run_head
from gnomon.kernels.detected_attention.accelerator.design import Design, Layer
from gnomon.kernels.detected_attention.accelerator.energy import FILE, constants
from gnomon.kernels.detected_attention.accelerator.files import load
from gnomon.kernels.detected_attention.accelerator.simulate import STAGES, compare, simulate

LAYER = Layer(tokens=48, width=64, heads=4, head_dim=16, ffn=128, rank=8, bits=4, retention=0.25)
SMALL = Design(rows=8, cols=4)


def nested(layer, seed=0):
    """Masks of rising retention, each within the next."""
    for retention in (0.05, 0.1, 0.3, 0.6, 1.0):
        yield masks.stand_in(replace(layer, retention=retention), seed)


@given(seed=st.integers(0, 1000), order=st.sampled_from(["out-of-order", "in-order", "row-by-row"]))
def test_cycles_rise_with_retention(seed, order):
    found = [simulate(LAYER, mask, replace(SMALL, order=order)).cycles for mask in nested(LAYER, seed)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_keeping_all_and_detecting_for_nothing_is_dense():
    dota, *_, dense = compare(replace(LAYER, retention=1.0), masks.full(LAYER), SMALL)
    assert dota.cycles - dota.stage("detection").cycles == dense.cycles
    assert dota.energy_j - dota.stage("detection").energy_j == pytest.approx(dense.energy_j)


def test_dense_attention_takes_as_long_as_its_products():
    """Counted by hand: groups of T queries take 2 n T d_h products; every softmax hides behind a product."""
    n, size, elements = LAYER.tokens, LAYER.head_dim, SMALL.elements
    dense = compare(LAYER, masks.full(LAYER), SMALL)[-1]
    per_group, groups = n * 4 * size // elements, n // 4
    assert 4 * n // SMALL.units < per_group
    assert dense.stage("attention").cycles == groups * 2 * per_group
    assert dense.loads == LAYER.heads * groups * n
    assert dense.stage("attention").events["multiply_16"] == 2 * LAYER.heads * n * n * size


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 5, 7])
def test_lanes_that_do_not_divide_the_heads_conserve_work(lanes):
    mask = masks.stand_in(LAYER)
    one, many = (simulate(LAYER, mask, replace(SMALL, lanes=k)) for k in (1, lanes))
    for event in ("multiply_16", "multiply_4", "add_16", "exponential", "compare"):
        assert many.count(event) == pytest.approx(one.count(event), abs=lanes)
    assert (many.loads, many.pairs) == (one.loads, one.pairs)
    assert many.cycles <= one.cycles
    assert sum(stage.useful for stage in many.stages) == pytest.approx(sum(stage.useful for stage in one.stages))


def test_energy_is_the_sum_of_events_over_stages():
    found, energies = simulate(LAYER, masks.stand_in(LAYER), SMALL), constants()
    names = {event for stage in found.stages for event in stage.events}
    by_event = sum(found.count(name) * energies.joule(name) for name in names)
    assert found.energy_j == pytest.approx(by_event)
    assert [stage.name for stage in found.stages] == list(STAGES)


def test_orders_share_pairs_and_differ_in_reads():
    out_of_order, in_order, row_by_row, dense = compare(LAYER, masks.stand_in(LAYER), SMALL)
    assert out_of_order.pairs == in_order.pairs == row_by_row.pairs < dense.pairs
    assert out_of_order.loads < in_order.loads < row_by_row.loads == row_by_row.pairs
    assert out_of_order.energy_j < in_order.energy_j < row_by_row.energy_j
    assert 0 < out_of_order.utilization <= dense.utilization <= 1


def test_a_slow_memory_makes_in_order_slower_than_out_of_order():
    thin = replace(SMALL, sram_bytes_cycle=32)
    out_of_order, in_order, *_ = compare(LAYER, masks.stand_in(LAYER), thin)
    assert out_of_order.stage("attention").cycles < in_order.stage("attention").cycles


def test_fewer_detector_bits_are_faster_and_cost_less():
    mask = masks.stand_in(LAYER)
    stages = [simulate(replace(LAYER, bits=bits), mask, SMALL).stage("detection") for bits in (2, 4, 8, 16)]
    assert [s.energy_j for s in stages] == sorted(s.energy_j for s in stages)
    assert [s.cycles for s in stages] == sorted(s.cycles for s in stages)
    assert len({s.useful for s in stages}) == 4


def test_keys_that_do_not_fit_into_sram_are_read_from_dram():
    mask = masks.stand_in(LAYER)
    roomy, tight = (simulate(LAYER, mask, replace(SMALL, sram_bytes=size)) for size in (2**20, 512))
    assert "dram_byte" not in roomy.stage("attention").events
    held = 512 / (4 * LAYER.tokens * LAYER.head_dim)
    missed = (1 - held) * 4 * LAYER.head_dim * tight.loads
    assert tight.stage("attention").events["dram_byte"] == pytest.approx(missed)
    starved = simulate(LAYER, mask, replace(SMALL, sram_bytes=512, dram_bytes_cycle=1))
    assert starved.stage("attention").bound == "memory"
    assert starved.cycles > tight.cycles


@given(seed=st.integers(0, 1000), units=st.integers(1, 64))
def test_units_work_on_one_thing_at_a_time_and_in_the_order_of_the_data(seed, units):
    mask = masks.stand_in(LAYER, seed)[0]
    ran = run_head(mask, LAYER.head_dim, replace(SMALL, units=units))
    ends = {busy.name: (busy.start, busy.end) for busy in ran.busy}
    for unit, cycles in (("array", ran.array_cycles), ("softmax", ran.softmax_cycles)):
        busy = sorted((b.start, b.end) for b in ran.busy if b.unit == unit)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(busy))
        assert sum(end - start for start, end in busy) == cycles <= ran.cycles
    for i in range(LAYER.tokens // 4):
        assert ends[f"scores {i}"][1] <= ends[f"softmax {i}"][0]
        assert ends[f"softmax {i}"][1] <= ends[f"values {i}"][0]
    assert ran.cycles == max(end for _, end in ends.values())


def test_bars_do_not_overlap_and_end_with_the_layer():
    found = simulate(LAYER, masks.stand_in(LAYER), SMALL)
    assert max(bar.end_s for bar in found.bars) == pytest.approx(found.seconds)
    for track in {bar.track for bar in found.bars}:
        bars = sorted((bar.start_s, bar.end_s) for bar in found.bars if bar.track == track)
        assert all(a[1] <= b[0] + 1e-15 for a, b in itertools.pairwise(bars))


def test_the_stand_in_keeps_the_same_number_everywhere_and_never_a_later_key():
    mask = masks.stand_in(LAYER, is_causal=True)
    kept = mask.sum(-1)
    np.testing.assert_array_equal(kept, np.minimum(np.arange(LAYER.tokens) + 1, LAYER.kept)[None].repeat(4, 0))
    assert not np.triu(mask, 1).any()
    assert (masks.stand_in(LAYER).sum(-1) == LAYER.kept).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retention", 0.0, r"retention must be in \(0, 1\]; got 0.0"),
        ("retention", 1.5, "retention must be"),
        ("rank", 0, "rank must be at least 1; got 0"),
        ("bits", 3, "bits must be one of 2, 4, 8, 16; got 3"),
        ("tokens", 0, "tokens must be at least 1; got 0"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(LAYER, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lanes", 0, "lanes must be at least 1; got 0"),
        ("queries", 9, "queries must be at most 8"),
        ("order", "random", "order must be one of out-of-order, in-order, row-by-row; got 'random'"),
        ("compares", -1, "compares must not be negative"),
    ],
)
def test_a_design_that_cannot_be_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **{name: value})


def test_a_mask_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mask must be bool \[4, 48, 48\] \(heads, n, n\); got bool \[4, 48, 47\]"):
        simulate(LAYER, np.ones((4, 48, 47), dtype=bool))
    mask = masks.full(LAYER)
    mask[2, 5] = False
    with pytest.raises(ValueError, match="mask leaves query 5 of head 2 without a key"):
        simulate(LAYER, mask)
    np.save(tmp_path / "scores.npy", np.zeros((4, 48, 48)))
    with pytest.raises(UsageError, match=r"wanted booleans \[heads, n, n\].* got float64 \[4, 48, 48\]"):
        load(tmp_path / "scores.npy")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "missing.npy")


def test_masks_come_back_from_files(tmp_path):
    torch = pytest.importorskip("torch")
    mask = masks.stand_in(LAYER)
    np.save(tmp_path / "mask.npy", mask[None])
    torch.save(torch.from_numpy(mask), tmp_path / "mask.pt")
    np.testing.assert_array_equal(load(tmp_path / "mask.npy"), mask)
    np.testing.assert_array_equal(load(tmp_path / "mask.pt"), mask)


def test_every_constant_has_a_source_and_an_invented_one_is_called_ours():
    found = constants()
    for event in found.events.values():
        text = found.sources[event.source]
        assert "ISSCC 2014" in text or text.startswith("ours")
    assert found.joule("dram_byte") == found.events["dram_byte"].joule  # memory outside the chip keeps its process
    assert found.joule("multiply_16") == pytest.approx(0.79e-12 * 22 / 45 * (0.8 / 0.9) ** 2)


def test_a_file_of_constants_that_is_wrong_is_named(tmp_path):
    text = FILE.read_text("utf-8")
    for name, damaged, message in (
        (
            "source.yaml",
            text.replace("source: linear,", "source: nobody,"),
            "source.yaml: events.add_16 wants a source",
        ),
        ("process.yaml", text.replace("45e-9", "46e-9"), "process_m is 4.6e-08; a supply voltage is known for"),
        ("form.yaml", "events: 3", "form.yaml: wanted process_m, sources and events"),
    ):
        (tmp_path / name).write_text(damaged, "utf-8")
        with pytest.raises(UsageError, match=message):
            constants(tmp_path / name)
