import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.core.errors import ManifestError
from gnomon.spec import init
from gnomon.spec.load import parse
from gnomon.spec.manifest import read
from gnomon.spec.resolve import resolve
from tests.spec.onnx_files import write_onnx

CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 100, "max_position_embeddings": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init")
    write_onnx(folder / "net.onnx")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "mine.py").write_text(
        "raise SystemExit('code ran')\n\n\ndef build(width, *, depth, bias=True):\n    pass\n\n\n"
        "def plain():\n    pass\n\n\ndef examples(dims, seed):\n    pass\n\n\n"
        "class Net:\n    def __init__(self, a, b=1):\n        pass\n",
        encoding="utf-8",
    )
    return folder


def fill(folder, texts, defaults=True):
    """Answers by their text, the default for all others."""
    answers = {}
    while (question := init.next_question(answers, folder)) is not None:
        text = texts.get(question.key, question.default if defaults else None)
        assert text is not None, f"no answer to {question.key}: {question.text}"
        answers[question.key] = question.read(text)
    return answers


GCN = {"target": "gnomon.zoo.graph.gcn:build", "arguments": "in_features=$F hidden=8 classes=3 layers=2"}
COMPLETE = {
    "python": {**GCN, "examples": "", "inputs": "features=float32[V,F] edge_index=int64[2,E]<V", "dim.V": "9",
               "dim.E": "20", "dim.F": "4"},
    "examples": {**GCN, "examples": "gnomon.zoo.graph.gcn:examples", "inputs": "", "dim.F": "128"},
    "onnx": {"source": "onnx", "weights": "net.onnx"},
    "huggingface": {"source": "huggingface", "config": "config.json"},
    "model": {"kind": "model", "source": "onnx", "weights": "net.onnx"},
    "dataset": {"kind": "dataset", "examples": "gnomon.zoo.graph.gcn:examples"},
    "software": {"kind": "software", "packages": "torch>=2.9 numpy"},
    "hardware": {"kind": "hardware", "accelerators": "2", "vendor": "amd"},
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLETE)
def test_defaults_and_a_few_answers_make_a_manifest(name, folder):
    answers = fill(folder, COMPLETE[name])
    path = folder / "written.yaml"
    path.write_text(init.text(answers), encoding="utf-8")
    document = parse(path, path.read_bytes()).document
    assert document == init.document(answers)
    if answers["kind"] == "task":
        assert resolve(path).name == answers["name"]


def test_what_can_be_read_is_offered(folder):
    answers = fill(folder, COMPLETE["onnx"])
    assert answers["inputs"] == [{"name": "data", "dtype": "float32", "shape": ["B", 3, 32, 32]}]
    assert answers["name"] == "net"
    answers = fill(folder, COMPLETE["huggingface"])
    assert (answers["dim.B"], answers["dim.L"], answers["name"]) == (1, 64, "bertmodel")
    assert init.required_arguments("mine:build", folder) == ["width", "depth"]
    assert init.required_arguments("mine:Net", folder) == ["a"]
    answers = {"kind": "task", "source": "python", "target": "mine:plain", "arguments": {}}
    assert init.next_question(answers, folder).default == "mine:examples"


_NAMES = st.sampled_from(["x", "ids", "mask_1", "images:0", "1", "x y", "x="])
_AXES = st.lists(st.sampled_from(["B", "L", "3", "224", "0", "-1", "b", "1e3", ""]), max_size=4)
_INPUTS = st.lists(
    st.builds(
        lambda name, dtype, axes, high: f"{name}={dtype}[{','.join(axes)}]{high}",
        _NAMES,
        st.sampled_from(["float32", "int64", "bool", "flaot32"]),
        _AXES,
        st.sampled_from(["", "", "<L", "<100", "<x", "<0"]),
    ),
    max_size=3,
).map(" ".join)
_TEXTS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(init.KINDS),
        "source": st.sampled_from(["python", "python", "onnx", "huggingface"]),
        "arguments": st.sampled_from(["", "width=1 depth=$B", "a=b c='$'", "x=$L y=$$z", "p=1e400 q=[1]", "r=null"]),
        "inputs": _INPUTS,
        "examples": st.sampled_from(["", "mine:examples", "no_such:thing"]),
        "name": st.text("aZ0-._ é", max_size=8),
        "version": st.sampled_from(["1.0.0", "1", "v1", "", "1.0rc1"]),
        "description": st.text(max_size=20),
        "least_cosine": st.sampled_from(["0.9", "1", "-1", "2", "nan", "x"]),
        "dtype": st.sampled_from(["float32", "BFLOAT16", "int8"]),
        "mode": st.sampled_from(["training", "train", ""]),
        "memory_gib": st.sampled_from(["0.5", "0", "inf", "16"]),
        "accelerators": st.sampled_from(["0", "2", "-1"]),
        "packages": st.sampled_from(["", "torch>=2.9", "torch >=", "a @ https://x"]),
        "python": st.sampled_from([">=3.11", "three", ""]),
    },
)


@settings(max_examples=100)
@given(texts=_TEXTS)
def test_whatever_is_answered_the_file_validates_or_the_reason_is_told(texts, folder):
    texts = {"target": "mine:plain", "weights": "net.onnx", "config": "config.json", "dim.L": "7", **texts}
    answers = {}
    while (question := init.next_question(answers, folder)) is not None:
        reason = None
        for text in (texts.get(question.key), question.default, "x=float32[B]", "mine:examples", "width=1 depth=2"):
            if text is None:
                continue
            try:
                answers[question.key] = question.read(text)
                break
            except ValueError as error:
                reason = str(error)
                assert len(reason) > 10
        else:
            raise AssertionError(f"{question.key} cannot be answered: {reason}")
    written = parse(Path("here.yaml"), init.text(answers).encode()).document
    assert read(written).metadata.name == answers["name"]
    assert written == init.document(answers)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("kind", "tsak", "wanted one of task, .* Did you mean 'task'"),
        ("target", "os.system", "wanted a callable of an installed package"),
        ("target", "no_such_module:build", "no module 'no_such_module'"),
        ("target", "mine:biuld", "has no callable 'biuld'. Did you mean 'build'"),
        ("arguments", "width", "wanted NAME=VALUE"),
        ("arguments", "width=1", "these have no default: depth"),
        ("arguments", "width=$b depth=1", "wanted '\\$' and the name of a dimension"),
        ("inputs", "x", "wanted NAME=DTYPE"),
        ("inputs", "", "wanted at least one input"),
        ("inputs", "x:0=float32[B]", "wanted the name of an argument, got 'x:0'"),
        ("inputs", "x=flaot32[B]", "no dtype is called 'flaot32'. Did you mean 'float32'"),
        ("inputs", "x=float32[b]", "wanted a size or the name of a dimension"),
        ("inputs", "x=float32[0]", "wanted a whole number from 1 to 1,000,000,000, got '0'"),
        ("inputs", "x=float32[B] x=int8[B]", "two inputs have the same name: x"),
        ("least_cosine", "1.5", "wanted a cosine from -1 to 1"),
        ("name", "My Task", "wanted a name in small letters"),
        ("version", "v1", "wanted a version"),
    ],
)
def test_a_bad_answer_is_told_what_was_wanted(key, text, message, folder):
    texts = {"target": "mine:build", "arguments": "width=1 depth=2", "examples": "", "inputs": "x=float32[B]"}
    answers = {}
    while (question := init.next_question(answers, folder)) is not None:
        if question.key == key:
            with pytest.raises(ValueError, match=message):
                question.read(text)
            return
        answers[question.key] = question.read(texts.get(question.key, question.default))
    raise AssertionError(f"{key} was not asked")


def test_files_that_do_not_fit_are_told(folder, tmp_path):
    write_onnx(tmp_path / "far.onnx")
    read_weights = init.next_question({"kind": "model", "source": "onnx"}, folder).read
    with pytest.raises(ValueError, match="does not lie in"):
        read_weights(str(tmp_path / "far.onnx"))
    with pytest.raises(ValueError, match=r"there is no file 'ent.onnx' in .*Did you mean 'net.onnx'"):
        read_weights("ent.onnx")
    with pytest.raises(ValueError, match="is no ONNX file"):
        read_weights("config.json")
    read_config = init.next_question({"kind": "model", "source": "huggingface"}, folder).read
    with pytest.raises(ValueError, match="no such file"):
        read_config("absent.json")
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match="or a configuration of transformers"):
        read_config(str(tmp_path))


def test_incomplete_answers_make_no_document(folder):
    answers = {**fill(folder, COMPLETE["hardware"]), "name": "No Name"}
    with pytest.raises(ManifestError, match=r"metadata.name: wanted a name"):
        init.document(answers)
