"""The bars of capture: a 175-billion-parameter model on this machine, FLOP, peak memory, unknown operators.

Run `python benchmarks/capture.py`; it prints the figures and writes them to benchmarks/results/capture.json.
FLOP are compared with formulas that are written here from layer sizes alone, and with torch.utils.flop_counter; peak
memory with torch.distributed._tools.mem_tracker, which follows the real tensors of a real training step.
"""

import dataclasses
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from gnomon.spec.task import Mode, Model, Protocol, Quality, Task, Tensor, Training
from gnomon.workload import capture, memory, program
from gnomon.workload.graph import OpGraph

RESULTS = Path(__file__).parent / "results" / "capture.json"
PRODUCTS = ("matmul", "convolution", "attention")
PIXELS = Tensor("pixel_values", "float32", ("B", 3, "S", "S"))


def tokens(name: str = "input_ids", vocabulary: int = 64) -> Tensor:
    return Tensor(name, "int64", ("B", "L"), "integers", 0, vocabulary)


def task(
    name: str,
    target: str,
    arguments: Mapping[str, Any],
    inputs: tuple[Tensor, ...],
    dims: Mapping[str, int],
    mode: Mode = "inference",
) -> Task:
    """A task on a Hugging Face configuration, as `gnomon.load` would resolve it."""
    model = Model(name, "1", "huggingface", target, arguments, inputs)
    training = Training() if mode == "training" else None
    return Task(
        name, "1", "", "", {}, mode, dims, "float32", "cpu", 1, 0, model, None, training, Quality(), Protocol()
    )  # fmt: skip


# (a) GPT-3 -----------------------------------------------------------------------------------------------------------


def gpt3() -> list[dict[str, Any]]:
    """Seconds and extra resident memory of capturing 96 layers of width 12288, sequence 2048, batch 1."""
    sizes = {"n_layer": 96, "n_embd": 12288, "n_head": 96, "vocab_size": 50257, "n_positions": 2048}
    rows = []
    for mode in ("inference", "training"):
        one = task("gpt3-175b", "GPT2LMHeadModel", sizes, (tokens(vocabulary=50257),), {"B": 1, "L": 2048}, mode)
        before, start, cpu = resident(), time.perf_counter(), time.process_time()
        graph = capture.capture_task(one)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        rows.append(
            {
                "mode": mode,
                "wall_s": wall,
                "cpu_s": cpu,
                "extra_bytes": extra,
                "operators": len(graph.ops),
                "parameters": graph.parameters,
                "flop": graph.flop,
                "peak_bytes": memory.peak(graph).peak_bytes,
                "unknown": graph.unknown,
            }
        )
    return rows


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# (b) FLOP ------------------------------------------------------------------------------------------------------------


def transformer_flop(layers: int, width: int, inner: int, length: int) -> float:
    """Four projections and two feed-forward products per token; scores and weighted sum per pair of tokens."""
    return layers * (2 * length * (4 * width**2 + 2 * width * inner) + 4 * length**2 * width)


def bert_large_flop(length: int = 512) -> float:
    return transformer_flop(24, 1024, 4096, length) + 2 * 1024**2  # the pooler sees one token


def gpt2_xl_flop(length: int = 1024) -> float:
    return transformer_flop(48, 1600, 6400, length) + 2 * length * 1600 * 50257  # the head


def vit_base_flop() -> float:
    patches = (224 // 16) ** 2
    embed = 2 * patches * (3 * 16 * 16) * 768
    return transformer_flop(12, 768, 3072, patches + 1) + embed + 2 * 768**2


def resnet50_flop() -> float:
    """He et al. 2016, table 1, with the stride in the 3x3 convolution as in the common implementations."""

    def conv(side: int, inputs: int, outputs: int, kernel: int) -> float:
        return 2 * side**2 * inputs * outputs * kernel**2

    total, inputs, side = conv(112, 3, 64, 7), 64, 56
    for stage, (blocks, width) in enumerate(((3, 256), (4, 512), (6, 1024), (3, 2048))):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = width // 4
            total += conv(side, inputs, inner, 1)
            side //= stride
            total += conv(side, inner, inner, 3) + conv(side, inner, width, 1)
            if block == 0:
                total += conv(side, inputs, width, 1)
            inputs = width
    return total + 2 * 2048 * 1000


LARGE: dict[str, tuple[Task, Callable[[], float]]] = {
    "BERT-large": (
        task(
            "bert-large",
            "BertModel",
            {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
            (tokens(),),
            {"B": 1, "L": 512},
        ),
        bert_large_flop,
    ),
    "GPT-2-XL": (
        task(
            "gpt2-xl",
            "GPT2LMHeadModel",
            {"n_embd": 1600, "n_layer": 48, "n_head": 25, "use_cache": False},
            (tokens(),),
            {"B": 1, "L": 1024},
        ),
        gpt2_xl_flop,
    ),
    "ResNet-50": (
        task("resnet-50", "ResNetForImageClassification", {"num_labels": 1000}, (PIXELS,), {"B": 1, "S": 224}),
        resnet50_flop,
    ),
    "ViT-B": (task("vit-b", "ViTModel", {}, (PIXELS,), {"B": 1, "S": 224}), vit_base_flop),
}


def _sdpa(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _sdpa_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
}


def products(graph: OpGraph) -> float:
    return sum(op.flop or 0.0 for op in graph.ops if op.category in PRODUCTS)


def flop() -> list[dict[str, Any]]:
    """Captured FLOP against the formulas and against torch's counter, forward and training step."""
    rows = []
    for name, (one, formula) in LARGE.items():
        graph = capture.capture_task(one)
        trained = capture.capture_task(training_of(one))
        rows.append(
            {
                "model": name,
                "captured": products(graph),
                "captured_all": graph.flop,
                "formula": formula(),
                "flop_counter": counted(one),
                "training": products(trained),
                "training_flop_counter": counted(training_of(one)),
            }
        )
    return rows


def training_of(one: Task) -> Task:
    return dataclasses.replace(one, mode="training", training=Training())


def counted(one: Task) -> float:
    built, fake = program.build_fake(one)
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)  # by itself it knows CUDA's kernels only
    with fake, counter:
        if isinstance(built.step, program.TrainingStep):
            built.step.forward().backward()
        else:
            with torch.no_grad():
                program.caller(built.model, built.inputs, "inputs")(built.inputs)  # type: ignore[arg-type]
    return float(counter.get_total_flops())


# (c) peak memory -----------------------------------------------------------------------------------------------------

BERT_SMALL = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 1000,
}  # fmt: skip
RESNET_SMALL = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "num_labels": 10}
SMALL = (
    task("bert-small", "BertModel", BERT_SMALL, (tokens(vocabulary=1000),), {"B": 8, "L": 64}, "training"),
    task("resnet-small", "ResNetForImageClassification", RESNET_SMALL, (PIXELS,), {"B": 8, "S": 64}, "training"),
)


def peaks() -> list[dict[str, Any]]:
    """Predicted peak of a training step against the peak of the tensors that really lived."""
    return [
        {"model": one.name, "predicted": memory.peak(capture.capture_task(one)).peak_bytes, "tracked": tracked(one)}
        for one in SMALL
    ]


def tracked(one: Task) -> int:
    built = program.build(one)
    built.step()  # so that the optimizer's state exists
    tracker = MemTracker()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracker.track_external(built.model, built.optimizer, *built.inputs.values())
        with tracker:
            built.step()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


# (d) ten families ----------------------------------------------------------------------------------------------------

_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_BERT = {**_WIDTHS, "vocab_size": 64}
_DECODER = {**_BERT, "num_key_value_heads": 2}
_MASK = Tensor("attention_mask", "int64", ("B", "L"), "ones")
FAMILIES = {
    "BERT": ("BertModel", _BERT, (tokens(), _MASK)),
    "GPT-2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}, (tokens(),)),
    "Llama": ("LlamaForCausalLM", _DECODER, (tokens(),)),
    "OPT": (
        "OPTForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 64,
         "word_embed_proj_dim": 32},
        (tokens(),),
    ),
    "T5": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64},
        (tokens(), tokens("decoder_input_ids")),
    ),
    "ViT": ("ViTModel", {**_WIDTHS, "image_size": 32, "patch_size": 8}, (PIXELS,)),
    "Swin": (
        "SwinModel",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        (PIXELS,),
    ),
    "ResNet": ("ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]}, (PIXELS,)),
    "ConvNeXt": ("ConvNextModel", {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}, (PIXELS,)),
    "Mixtral": ("MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}, (tokens(),)),
}  # fmt: skip


def families() -> list[dict[str, Any]]:
    """Operators without a rule, in inference and in training."""
    rows = []
    for name, (target, arguments, inputs) in FAMILIES.items():
        for mode in ("inference", "training"):
            graph = capture.capture_task(task(name, target, arguments, inputs, {"B": 2, "L": 16, "S": 32}, mode))
            rows.append({"family": name, "mode": mode, "operators": len(graph.ops), "unknown": graph.unknown})
    return rows


def main() -> int:
    torch.set_num_threads(1)
    transformers.GPT2LMHeadModel  # noqa: B018 - importing it is not part of a capture
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": _processor(),
        "threads": 1,
        "gpt3": gpt3(),
        "flop": flop(),
        "peaks": peaks(),
        "families": families(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if show(result) else 1


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def show(result: dict[str, Any]) -> bool:
    """Print every figure with its bar; whether all bars hold."""
    bars = []

    def bar(text: str, holds: bool) -> None:
        bars.append(holds)
        print(f"  {'holds' if holds else 'FAILS'}  {text}")

    print(f"torch {result['torch']}, transformers {result['transformers']}, {result['processor']}, 1 thread")
    print("(a) GPT-3 175B shape, sequence 2048, batch 1: under 60 s and 2 GiB")
    for r in result["gpt3"]:
        bar(
            f"{r['mode']}: {r['operators']} operators in {r['wall_s']:.1f} s ({r['cpu_s']:.1f} s CPU), "
            f"{r['extra_bytes'] / 2**20:.0f} MiB extra; {r['flop']:.4g} FLOP, peak {r['peak_bytes'] / 2**30:.0f} GiB, "
            f"{len(r['unknown'])} unknown",
            r["wall_s"] < 60 and r["extra_bytes"] < 2 * 2**30 and not r["unknown"],
        )
    print(
        "(b) FLOP of products (matrix, convolution, attention) against formula and torch.utils.flop_counter: within 1 %"
    )
    for r in result["flop"]:
        ratios = (
            r["captured"] / r["formula"],
            r["captured"] / r["flop_counter"],
            r["training"] / r["training_flop_counter"],
        )
        bar(
            f"{r['model']}: {r['captured']:.5g} captured, {r['formula']:.5g} formula ({ratios[0] - 1:+.2%}), "
            f"{r['flop_counter']:.5g} counter ({ratios[1] - 1:+.2%}); training {r['training']:.5g} "
            f"({ratios[2] - 1:+.2%}); all operators {r['captured_all'] / r['captured'] - 1:+.2%}",
            all(abs(ratio - 1) < 0.01 for ratio in ratios),
        )
    print("(c) peak memory of a training step against the tracked peak: within 10 %")
    for r in result["peaks"]:
        ratio = r["predicted"] / r["tracked"]
        bar(
            f"{r['model']}: {r['predicted']} predicted, {r['tracked']} tracked ({ratio - 1:+.2%})", abs(ratio - 1) < 0.1
        )
    print("(d) operators without a rule: none")
    for r in result["families"]:
        bar(
            f"{r['family']} {r['mode']}: {r['operators']} operators, unknown {r['unknown'] or 'none'}", not r["unknown"]
        )
    return all(bars)


if __name__ == "__main__":
    sys.exit(main())
