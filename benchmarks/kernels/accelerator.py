"""DOTA's accelerator with the masks of a trained model, beside a stand-in's and random ones; and the pipeline's card.

`python benchmarks/kernels/accelerator.py [--steps N] [--out FILE]` trains the reduced task (associative recall: dense,
then the detectors, then both with the mask on; some five minutes on one core), simulates both layers for eight fresh
sequences, and stores what came out. Then it draws the seven arrangements of the length-aware pipeline again. Nothing
here is timed: cycles are simulated, so only the training's rounding differs between machines.

(a) Dense accuracy is 0.95 or more and detected within 0.03 of it, else the masks are not a working model's.
(b) Out of order reads fewer keys than in order, and that fewer than row by row, with real masks.
(c) Detection and exact attention together take less than half the cycles of dense attention.
(d) Every arrangement's speed-up is within 8 % of the method's card, and its useful utilization within 0.04.

Exit code 1: a bar is missed.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnomon.core.records import to_json
from gnomon.devices.host import host
from gnomon.forecast.length_aware import draw_lengths, run_all, summary
from gnomon.kernels.detected_attention import (
    DetectedAttention,
    Detector,
    Selection,
    detector_loss,
    detectors_only,
    jointly,
)
from gnomon.kernels.detected_attention.accelerator import Design, Layer, compare, masks
from gnomon.zoo.sequence.associative_recall import Recall, RecallTransformer, Sequences, accuracy, fit, loss

RESULTS = Path(__file__).parents[1] / "results" / "accelerator.json"
_WIDTH, _HEADS, _RANK, _BITS, _KEPT = 64, 4, 16, 4, 13
_SEQUENCES, _WEIGHT = 8, 0.1
# of the method's card: speed-up over dense padded, useful utilization
CARD = {
    "dense padded": (1.0, 0.39),
    "dense": (1.27, 0.59),
    "sparse padded": (1.06, 0.43),
    "sparse": (1.54, 0.65),
    "sparse sorted": (1.85, 0.78),
    "sparse sorted buffered": (1.95, 0.83),
    "sparse buffered": (1.91, 0.81),
}


def trained(task: Recall, steps: int) -> tuple[RecallTransformer, float, float]:
    """The model with its detectors, and its accuracy dense and with the mask on."""
    torch.manual_seed(0)
    model = RecallTransformer(task, _WIDTH, _HEADS)
    fit(model, task, seed=0, steps=steps)
    dense = accuracy(model, task, seed=1)
    for i, attention in enumerate(model.attentions()):
        detector = Detector(_WIDTH, _HEADS, _RANK, _BITS, seed=i)
        attention.attend = DetectedAttention(detector, Selection(_KEPT / task.tokens))

    def observed(model: torch.nn.Module, batch: Sequences) -> torch.Tensor:
        model(batch.keys, batch.values)
        return detector_loss(model)

    def together(model: torch.nn.Module, batch: Sequences) -> torch.Tensor:
        return loss(model, batch) + _WEIGHT * detector_loss(model)

    with detectors_only(model) as parameters:
        fit(model, task, 2, steps // 5, learning_rate=1e-2, parameters=parameters, objective=observed)
    with jointly(model) as parameters:
        fit(model, task, 3, steps * 4 // 15, learning_rate=5e-4, parameters=parameters, objective=together)
    return model, dense, accuracy(model, task, seed=1)


@torch.no_grad()
def kept_by(model: RecallTransformer, task: Recall) -> list[NDArray[np.bool_]]:
    """Masks [h, n, n] of every layer and sequence."""
    found: list[NDArray[np.bool_]] = []
    drawn = task.draw(_SEQUENCES, torch.Generator().manual_seed(4))
    hooks = []
    for attention in model.attentions():
        inner = attention.attend
        assert isinstance(inner, DetectedAttention)

        def keep(inner: Any, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
            x, q, k, _v = inputs
            found.extend(inner.selection.mask(inner.keep(x, q, k), task.tokens, task.tokens).numpy())

        hooks.append(inner.register_forward_hook(keep))
    model.eval()(drawn.keys, drawn.values)
    for hook in hooks:
        hook.remove()
    return found


def random_mask(layer: Layer, seed: int) -> NDArray[np.bool_]:
    """Every query keeps as many keys, whichever."""
    scores = np.random.default_rng(seed).random((layer.heads, layer.tokens, layer.tokens))
    return scores.argsort(-1).argsort(-1) < layer.kept


def simulated(layer: Layer, kept: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """Means over masks. reads: keys read, by order, as a share of row by row; least: each once for its group."""
    runs = [compare(layer, mask, Design()) for mask in kept]
    least = [mask.reshape(layer.heads, -1, 4, layer.tokens).any(2).sum() / mask.sum() for mask in kept]

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values)

    def attention(run: Any) -> int:
        return sum(stage.cycles for stage in run.stages if stage.name in ("detection", "attention"))

    return {
        "reads": {run.name: mean([each[i].loads / each[2].loads for each in runs]) for i, run in enumerate(runs[0])},
        "least": mean(least),
        "attention_speedup": mean([attention(each[3]) / attention(each[0]) for each in runs]),
        "layer_speedup": mean([each[3].cycles / each[0].cycles for each in runs]),
        "energy_ratio": mean([each[3].energy_j / each[0].energy_j for each in runs]),
        "utilization": mean([each[0].utilization for each in runs]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="of the dense training")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = Recall()
    model, dense, sparse = trained(task, chosen.steps)
    layer = Layer(task.tokens, _WIDTH, _HEADS, _WIDTH // _HEADS, 4 * _WIDTH, _RANK, _BITS, _KEPT / task.tokens)
    found = {
        "trained": simulated(layer, kept_by(model, task)),
        "stand-in": simulated(layer, [masks.stand_in(layer, seed) for seed in range(_SEQUENCES)]),
        "random": simulated(layer, [random_mask(layer, seed) for seed in range(_SEQUENCES)]),
    }
    rows = {row.name: row for row in summary([run_all(draw_lengths(16, 120, 0.6, seed)) for seed in range(20)])}
    reads = found["trained"]["reads"]
    bars = {
        "(a) dense solves the task, detected within 0.03 of it": dense >= 0.95 and dense - sparse <= 0.03,
        "(b) out of order < in order < row by row": reads["dota, out-of-order"] < reads["dota, in-order"] < 1,
        "(c) attention at least 2x dense": found["trained"]["attention_speedup"] >= 2,
        "(d) the card's arrangements": all(
            abs(rows[name].speedup / speedup - 1) <= 0.08 and abs(rows[name].useful - useful) <= 0.04
            for name, (speedup, useful) in CARD.items()
        ),
    }
    print(f"accuracy: dense {dense:.3f}, {_KEPT} of {task.tokens} keys {sparse:.3f}")
    print(
        f"\n{'masks':10} {'out of order':>13} {'in order':>9} {'least':>6} {'attention':>10} {'layer':>6} {'energy':>7}"
    )
    for name, row in found.items():
        kinds = row["reads"]
        print(f"{name:10} {kinds['dota, out-of-order']:13.3f} {kinds['dota, in-order']:9.3f} {row['least']:6.3f} "
              f"{row['attention_speedup']:9.2f}x {row['layer_speedup']:5.2f}x {row['energy_ratio']:6.2f}x")  # fmt: skip
    print(f"\n{'arrangement':24} {'speed-up':>9} {'card':>6} {'useful':>7} {'card':>6}")
    for name, (speedup, useful) in CARD.items():
        print(f"{name:24} {rows[name].speedup:8.2f}x {speedup:5.2f}x {rows[name].useful:7.2f} {useful:6.2f}")
    for bar, holds in bars.items():
        print(f"{'holds' if holds else 'MISSED':7} {bar}")
    document = {
        "task": to_json(task),
        "layer": to_json(layer),
        "design": to_json(Design()),
        "accuracy": {"dense": dense, "detected": sparse},
        "masks": found,
        "pipeline": {name: row._asdict() for name, row in rows.items()},
        "card": CARD,
        "bars": bars,
        "environment": {
            "host": to_json(host()),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    chosen.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
