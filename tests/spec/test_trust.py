import pytest

from gnomon.core.errors import DamagedData, ManifestError, UsageError
from gnomon.spec import trust
from gnomon.spec.load import load
from gnomon.spec.resolve import explain, resolve
from tests.spec.write import MODEL, manifest, task, write

CODE = "def preprocess(context, batch):\n    return batch\n"
INLINE = {**MODEL, "stages": {"preprocess": {"code": CODE}}}
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_what_is_put_on_the_list_is_on_it_until_it_is_taken_off():
    assert trust.trusted() == {}
    trust.add(ONE, "Model one@1.0\nwith a second line")
    trust.add(TWO, "")
    trust.add(TWO, "Task two@1")
    assert trust.trusted() == {ONE: "Model one@1.0 with a second line", TWO: "Task two@1"}
    trust.remove(ONE)
    assert (trust.is_trusted(ONE), trust.is_trusted(TWO)) == (False, True)
    with pytest.raises(UsageError, match=f"{ONE} is not on the trust list"):
        trust.remove(ONE)


def test_a_damaged_list_trusts_nothing():
    trust.add(ONE, "x")
    trust.trust_file().write_text(f"{ONE} x\nsha256:12\n")
    with pytest.raises(DamagedData, match=r"trusted-manifests.txt:2: wanted 'sha256:.*got 'sha256:12'"):
        trust.is_trusted(ONE)


def test_inline_code_is_refused_until_its_manifest_is_trusted_and_again_after_any_change(tmp_path):
    path = write(tmp_path, "task.yaml", task(model=INLINE))
    with pytest.raises(ManifestError, match=r"spec.model.stages.preprocess.code: .*gnomon trust .*task.yaml"):
        resolve(path)
    digest = load(path).manifest().digest
    trust.add(digest, "it")
    resolved = resolve(path)
    assert resolved.model.inline == digest
    assert resolved.model.stages.preprocess.code == CODE
    assert resolved.trusted is False
    write(tmp_path, "task.yaml", task(model=INLINE, seed=1))
    with pytest.raises(ManifestError, match="runs only when you trust this very manifest"):
        resolve(path)


def test_the_manifest_that_holds_the_code_is_the_one_to_trust(tmp_path):
    model = write(tmp_path, "model.yaml", manifest("Model", "m", "1.0", **INLINE))
    path = write(tmp_path, "task.yaml", task(model={"file": "./model.yaml"}))
    trust.add(load(path).manifest().digest, "the task is not where the code stands")
    with pytest.raises(ManifestError, match=r"model.yaml:\d+: spec.stages.preprocess.code"):
        resolve(path)
    trust.add(load(model).manifest().digest, "the model is")
    assert any("on the trust list" in decision for decision in explain(path).decisions)
    child = write(tmp_path, "child.yaml", manifest("Task", "child", "1.0", extends={"file": "./task.yaml"}))
    assert resolve(child).model.inline == load(model).manifest().digest


def test_trust_for_one_command_admits_it_and_leaves_the_list_alone(tmp_path):
    assert resolve(write(tmp_path, "task.yaml", task(model=INLINE)), trust=True).trusted
    assert trust.trusted() == {}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def preproces(context, batch): ...", r"wanted code that defines preprocess\(context, batch\), got preproces"),
        ("1 +", r"wanted Python, got what it cannot read \(its line 1\): invalid syntax"),
        ("x = '\0'", "wanted Python, got what it cannot read"),
        ("(" * 500, "wanted Python, got what it cannot read"),
        ("1", "got no name"),
    ],
)
def test_text_that_cannot_be_a_stage_is_refused_even_with_trust(tmp_path, code, message):
    path = write(tmp_path, "task.yaml", task(model={**MODEL, "stages": {"preprocess": {"code": code}}}))
    with pytest.raises(ManifestError, match=message):
        resolve(path, trust=True)


def test_inline_code_is_read_and_not_run(tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n{CODE}"
    resolve(write(tmp_path, "task.yaml", task(model={**MODEL, "stages": {"preprocess": {"code": code}}})), trust=True)
    assert not (tmp_path / "ran").exists()


def test_named_stages_are_located_like_other_code(tmp_path):
    named = {"preprocess": {"target": "gnomon.zoo.stages:topk"}, "postprocess": {"target": "mine:stage"}}
    (tmp_path / "mine.py").write_text("raise RuntimeError('run')\ndef stage(context, batch): ...\n")
    path = write(tmp_path, "task.yaml", task(model={**MODEL, "stages": named}))
    with pytest.raises(ManifestError) as caught:
        resolve(path)
    assert "stages.preprocess.target: 'gnomon.zoo.stages' has no callable 'topk'. Did you mean 'top_k'" in str(
        caught.value
    )
    assert "stages.postprocess.target: 'mine:stage' is code in" in str(caught.value)


def test_arguments_of_a_stage_may_be_sizes(tmp_path):
    stage = {"target": "gnomon.zoo.stages:top_k", "arguments": {"k": "$F"}}
    path = write(tmp_path, "task.yaml", task(model={**MODEL, "stages": {"postprocess": stage}}))
    assert resolve(path).model.stages.postprocess.arguments == {"k": 4}
    stage["arguments"]["k"] = "$X"
    write(tmp_path, "task.yaml", task(model={**MODEL, "stages": {"postprocess": stage}}))
    with pytest.raises(ManifestError, match=r"spec.model.stages.postprocess.arguments.k: no dimension 'X'"):
        resolve(path)


def test_layouts_and_meanings_that_both_sides_state_must_agree(tmp_path):
    inputs = [{**MODEL["inputs"][0], "layout": "VF", "semantics": "counts"}, MODEL["inputs"][1]]
    given = {"dtype": "float32", "shape": ["V", "F"], "layout": "FV", "semantics": "shares"}
    edges = {"dtype": "int64", "shape": [2, "E"], "layout": "PE"}
    data = {"examples": "gnomon.zoo.graph.gcn:examples", "provides": {"features": given, "edge_index": edges}}
    path = write(tmp_path, "task.yaml", task(model={**MODEL, "inputs": inputs}, dataset=data))
    with pytest.raises(ManifestError) as caught:
        resolve(path)
    first, second = str(caught.value).splitlines()
    assert "provides.features.layout: the model wants 'VF', the dataset provides 'FV'" in first
    assert "provides.features.semantics: the model wants 'counts', the dataset provides 'shares'" in second
