import dataclasses

import pytest
import torch

from gnomon.core.errors import NotRunnable
from gnomon.measure import replay
from gnomon.measure.clock import Clock
from gnomon.measure.unique import AS_IS, measure_unique, operator_digest
from gnomon.workload import program
from gnomon.workload.capture import capture_task
from tests.measure.tasks import bert, linear, other_engine, training


@pytest.fixture(scope="module")
def calls():
    return replay.record_step(program.build(bert()))


def test_the_recorded_operators_are_those_of_the_graph(calls):
    graph = capture_task(bert())
    digests = {
        operator_digest(o.name, graph.shapes(o.inputs), [graph.tensors[i].dtype for i in o.inputs], o.attributes)
        for o in graph.ops
    }
    assert len(calls) == len(graph.ops)
    assert len({call.digest for call in calls} & digests) >= 0.9 * len(digests)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_every_piece_of_a_step_runs_alone_and_pieces_cover_the_step(calls, length):
    cut = replay.pieces(calls, length)
    assert sum(len(piece.calls) for piece in cut) == len(calls)
    with torch.inference_mode():
        for piece in cut:
            step = piece.step(2, lambda x: x, "cpu")
            step()
            step()


def test_repeated_blocks_are_one_piece():
    deep, shallow = (replay.record_step(program.build(bert(layers=n))) for n in (4, 2))
    kinds = [{piece.key for piece in replay.pieces(calls, 1)} for calls in (deep, shallow)]
    assert len(deep) > 1.5 * len(shallow)
    assert kinds[0] == kinds[1]


def test_a_piece_whose_operators_change_is_another_piece(calls):
    one, other = replay.pieces(calls, 1)[:2]
    assert one.key != other.key
    shorter = replay.record_step(program.build(bert(length=8)))
    kinds = [{piece.key for piece in replay.pieces(found, 1)} for found in (calls, shorter)]
    assert kinds[0] & kinds[1]  # the pooler sees one token of each text, however long it is
    assert kinds[0] - kinds[1]


def test_a_piece_computes_what_its_operators_compute():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    x = torch.randn(2, 3)
    recorder = replay.Recorder(frozenset())
    with torch.no_grad(), recorder:
        model(x)
    ones = replay.Piece(tuple(recorder.calls), 0)
    spied = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            spied.append(result)
            return result

    step = ones.step(1, lambda t: torch.full_like(t, 2.0), "cpu")
    with torch.inference_mode(), Spy():
        step()
    assert torch.equal(spied[-1], torch.full((2, 3), 2.0 + 3 * 2.0 * 2.0))  # bias + sum over 3 of 2 x 2, then ReLU


def test_integers_are_the_real_ones_because_they_say_what_is_looked_up(calls):
    lookup = next(call for call in calls if call.name.startswith("aten.embedding"))
    ids = lookup.inputs[1][0].values
    real = program.build(bert()).inputs["input_ids"]
    assert torch.equal(ids, real)


def test_weights_are_known_and_each_copy_has_its_own(calls):
    products = [call for call in calls if call.name == "aten.addmm.default"]
    widest = max(products, key=lambda call: max(spec.bytes for spec, _ in call.inputs))
    assert [spec.is_weight for spec, _ in widest.inputs] == [True, False, True]
    piece = replay.Piece((widest,), calls.index(widest))
    timer = replay.Timer(Clock(), "cpu", weights_bytes=10 * piece.weight_bytes, clock_is_cpu=True)
    assert timer._copies(piece) == 10  # as many as the model's weights are more than its own
    assert dataclasses.replace(timer, weights_bytes=1e12)._copies(piece) == 32
    assert dataclasses.replace(timer, weights_bytes=0)._copies(piece) == 1
    narrow = next(call for call in products if call.inputs[2][0].shape == (64, 64))
    assert timer._copies(replay.Piece((narrow,), calls.index(narrow))) == 1  # too small to matter


def test_a_training_step_is_cut_too_with_its_optimizer():
    calls = replay.record_step(program.build(training()))
    assert any(call.writes for call in calls)
    with torch.inference_mode():
        for piece in replay.pieces(calls, 1):
            piece.step(1, lambda x: x, "cpu")()


def test_an_engine_other_than_torch_is_refused_with_its_reason():
    with pytest.raises(NotRunnable, match="an engine other than torch runs the model"):
        replay.record_step(other_engine(program.build(linear()), {}))


def test_an_operator_that_cannot_run_alone_is_a_failure_and_not_an_error(calls):
    broken = dataclasses.replace(calls[0], func=torch.ops.aten.mm.default)
    pieces = [replay.Piece((broken,), 0), replay.Piece((calls[-1],), len(calls) - 1)]
    timer = replay.Timer(Clock(), "cpu", 1e6, clock_is_cpu=True)
    measured, found = replay.compose(lambda: None, pieces, 1, timer, 0.05)
    assert found.predicted_s is None
    assert len(found.failures) == 1
    assert found.failures[0].startswith(calls[0].name.replace(calls[0].name, "aten.mm.default"))
    assert sum(isinstance(value, float) for value in measured.values()) == 1


def test_a_step_of_repeated_blocks_is_predicted_from_less_measuring(calls):
    timer = replay.Timer(Clock(), "cpu", 1e6, clock_is_cpu=True)
    measured, found = replay.compose(program.build(bert()).step, replay.pieces(calls, 1), 1, timer, 0.2)
    assert found.failures == ()
    assert found.unique == len(measured) < found.pieces / 2
    assert found.measured_s < found.predicted_s
    assert found.step_s > 0


def test_a_task_is_measured_piece_by_piece_in_a_process_of_its_own():
    seen = []
    found = measure_unique(linear(256), lengths=(4,), budget_s=0.2, progress=seen.append)
    assert "pieces of 4 operators" in seen
    assert [one.length for one in found.compositions] == [1, 4]
    assert sum(one.calls for one in found.operators) == found.compositions[0].pieces
    (product,) = [one for one in found.operators if one.name == "aten.addmm.default"]
    assert product.best_s <= product.times[AS_IS]
    assert "bfloat16" not in product.times  # another result is no algorithm of this one
    assert found.clock == "cpu"
    assert found.weights_bytes == 4 * (256 * 256 + 256)
