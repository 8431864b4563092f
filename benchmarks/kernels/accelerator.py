"""DOTA's accelerator with the masks of a trained model, beside a stand-in's and random ones; and the pipeline's card.

`python benchmarks/kernels/accelerator.py [--quick] [--out FILE]` trains the reduced task (associative recall: dense,
then the detectors, then both with the mask on; some three minutes on one core), simulates both layers for eight fresh
sequences, and stores what came out. Then it draws the seven arrangements of the length-aware pipeline again. Nothing
here is timed: cycles are simulated, so only the training's rounding differs between machines.

(a) Dense accuracy is 0.95 or more and detected within 0.03 of it, else the masks are not a working model's.
(b) Out of order reads fewer keys than in order, and that fewer than row by row, with real masks.
(c) Detection and exact attention together take fewer cycles than dense attention, even with the task's small heads.
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
from detected import (  # the benchmark beside this one
    BITS,
    FULL,
    HEADS,
    KEPT,
    QUICK,
    RANK,
    TASK,
    WIDTH,
    Steps,
    train_detectors,
    train_jointly,
    with_detectors,
)
from detected import trained as train_dense
from numpy.typing import NDArray

from gnomon.core.records import to_json
from gnomon.devices.host import host
from gnomon.forecast.length_aware import draw_lengths, run_all, summary
from gnomon.forecast.length_aware.arrangements import PUBLISHED
from gnomon.kernels.detected_attention import DetectedAttention
from gnomon.kernels.detected_attention.accelerator import Design, Layer, compare, masks
from gnomon.zoo.sequence.associative_recall import RecallTransformer, accuracy

RESULTS = Path(__file__).parents[1] / "results" / "accelerator.json"
_SEQUENCES = 8
_LARGE = Layer(tokens=512, width=768, heads=12, head_dim=64, ffn=3072)  # rank 16, 4 bits, a tenth kept; a stand-in mask


def trained(steps: Steps) -> tuple[RecallTransformer, float, float]:
    """The model with its detectors, as the benchmark of detected attention trains it, and its accuracy dense and with
    the mask on."""
    dense = train_dense(0, steps.dense)
    model = with_detectors(dense, 0, KEPT[0])
    train_detectors(model, 0, steps.detectors)
    train_jointly(model, 0, steps.joint)
    return model, accuracy(dense, TASK, seed=1), accuracy(model, TASK, seed=1)


@torch.no_grad()
def kept_by(model: RecallTransformer) -> list[NDArray[np.bool_]]:
    """Masks [h, n, n] of every layer and sequence."""
    found: list[NDArray[np.bool_]] = []
    drawn = TASK.draw(_SEQUENCES, torch.Generator().manual_seed(4))
    hooks = []
    for attention in model.attentions():
        inner = attention.attend
        assert isinstance(inner, DetectedAttention)

        def keep(inner: Any, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
            x, q, k, _v = inputs
            found.extend(inner.selection.mask(inner.keep(x, q, k), TASK.tokens, TASK.tokens).numpy())

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
    parser.add_argument("--quick", action="store_true", help="fewer steps: the model then solves less of the task")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, dense, sparse = trained(QUICK if chosen.quick else FULL)
    layer = Layer(TASK.tokens, WIDTH, HEADS, WIDTH // HEADS, 4 * WIDTH, RANK, BITS, KEPT[0] / TASK.tokens)
    found = {
        "trained": simulated(layer, kept_by(model)),
        "stand-in": simulated(layer, [masks.stand_in(layer, seed) for seed in range(_SEQUENCES)]),
        "random": simulated(layer, [random_mask(layer, seed) for seed in range(_SEQUENCES)]),
        "BERT-base": simulated(_LARGE, [masks.stand_in(_LARGE)]),
    }
    rows = {row.name: row for row in summary([run_all(draw_lengths(16, 120, 0.6, seed)) for seed in range(20)])}
    reads = found["trained"]["reads"]
    bars = {
        "(a) dense solves the task, detected within 0.03 of it": dense >= 0.95 and dense - sparse <= 0.03,
        "(b) out of order < in order < row by row": reads["dota, out-of-order"] < reads["dota, in-order"] < 1,
        "(c) attention in fewer cycles than dense": found["trained"]["attention_speedup"] > 1,
        "(d) the card's arrangements": all(
            abs(rows[name].speedup / speedup - 1) <= 0.08 and abs(rows[name].useful - useful) <= 0.04
            for name, (speedup, useful) in PUBLISHED.items()
        ),
    }
    print(f"accuracy: dense {dense:.3f}, {KEPT[0]} of {TASK.tokens} keys {sparse:.3f}")
    print(
        f"\n{'masks':10} {'out of order':>13} {'in order':>9} {'least':>6} {'attention':>10} {'layer':>6} {'energy':>7}"
    )
    for name, row in found.items():
        kinds = row["reads"]
        print(f"{name:10} {kinds['dota, out-of-order']:13.3f} {kinds['dota, in-order']:9.3f} {row['least']:6.3f} "
              f"{row['attention_speedup']:9.2f}x {row['layer_speedup']:5.2f}x {row['energy_ratio']:6.2f}x")  # fmt: skip
    print(f"\n{'arrangement':24} {'speed-up':>9} {'card':>6} {'useful':>7} {'card':>6}")
    for name, (speedup, useful) in PUBLISHED.items():
        print(f"{name:24} {rows[name].speedup:8.2f}x {speedup:5.2f}x {rows[name].useful:7.2f} {useful:6.2f}")
    for bar, holds in bars.items():
        print(f"{'holds' if holds else 'MISSED':7} {bar}")
    document = {
        "task": to_json(TASK),
        "layer": to_json(layer),
        "design": to_json(Design()),
        "accuracy": {"dense": dense, "detected": sparse},
        "masks": found,
        "pipeline": {name: row._asdict() for name, row in rows.items()},
        "card": PUBLISHED,
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
