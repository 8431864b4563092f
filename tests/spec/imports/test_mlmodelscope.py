import json
import re
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gnomon.core.errors import ManifestError
from gnomon.spec.imports.back import to_mlmodelscope
from gnomon.spec.imports.mlmodelscope import CODE_KEYS, KEYS, import_bytes, meaning
from gnomon.spec.load import parse
from gnomon.spec.manifest import read
from gnomon.spec.write import yaml_text
from tests.spec.imports.examples import CLEAN, CODE, MESSY, as_json, data_of, manifest

HERE = Path("here.yml")


def imported(text):
    return import_bytes(HERE, data_of(text))


def through_yaml(documents):
    """The documents as they are once they have been written and read again."""
    return {role: parse(HERE, yaml_text(document).encode()).document for role, document in documents.items()}


@pytest.mark.parametrize("name", CLEAN)
def test_a_manifest_without_code_is_imported_without_loss_and_goes_back_equal(name):
    result = imported(CLEAN[name])
    assert result.lossless
    assert to_mlmodelscope(through_yaml(result.documents)) == meaning(HERE, CLEAN[name].encode())


@pytest.mark.parametrize("name", CLEAN)
def test_every_key_of_a_manifest_is_in_the_report_and_the_documents_are_manifests(name):
    result = imported(CLEAN[name])
    reported = {remark.key.split(".")[0].split("[")[0] for remark in result.remarks}
    assert reported >= meaning(HERE, CLEAN[name].encode()).keys()
    for document in result.documents.values():
        read(document)


@pytest.mark.parametrize("name", [name for name in MESSY if name != "large"])  # a limit of files: test_folder
def test_a_messy_manifest_gives_a_result_or_a_precise_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, wanted = MESSY[name]
    if wanted.startswith("!"):
        with pytest.raises(ManifestError, match=r"here\.yml(:\d+)?: ") as error:
            imported(text)
        assert re.search(wanted[1:], str(error.value)), error.value
    else:
        result = imported(text)
        assert any(re.search(wanted, remark.note) for remark in result.remarks), result.remarks
        assert to_mlmodelscope(result.documents) == meaning(HERE, data_of(text))
    assert list(tmp_path.iterdir()) == []  # the code of a manifest would have left a file


def test_versions_keep_their_text():
    result = imported(manifest(version="1.120", constraint="1.10"))
    assert result.documents["model"]["metadata"]["version"] == "1.120"
    assert result.documents["software"]["spec"]["packages"] == ["onnxruntime==1.10.*"]
    assert to_mlmodelscope(result.documents)["version"] == "1.120"


def test_inline_code_leaves_only_its_digest():
    result = imported(manifest(extra=CODE))
    assert not result.lossless
    written = as_json(through_yaml(result.documents))
    assert "import os" not in written
    assert "def " not in written
    labels = result.documents["model"]["metadata"]["labels"]
    assert set(labels) >= {"mlmodelscope-code/preprocess", "mlmodelscope-code/postprocess"}
    assert not to_mlmodelscope(result.documents).keys() & set(CODE_KEYS)
    note = next(remark.note for remark in result.remarks if remark.key == "preprocess")
    assert "The parameters declare RGB, (x - [1.0, 2.5, 3.0]) / 255.0" in note


@pytest.mark.parametrize(
    ("layout", "dimensions", "shape"),
    [
        ("CHW", "[3, 224, 200]", ["B", 3, 224, 200]),
        ("HWC", "[3, 224, 200]", ["B", 224, 200, 3]),  # the sizes are channels, height, width whatever the layout
        ("HWC", "[64]", ["B", 64, 64, 3]),
        ("CHW", "[3, -1, -1]", ["B", 3, "H", "W"]),
        ("HWC", "", ["B", "H", "W", 3]),
    ],
)
def test_dimensions_become_a_shape_by_the_layout(layout, dimensions, shape):
    (found,) = imported(manifest(layout=layout, dimensions=dimensions)).documents["model"]["spec"]["inputs"]
    assert (found["shape"], found["layout"]) == (shape, f"N{layout}")


def test_a_framework_version_is_a_constraint_that_the_task_does_not_ask_for():
    result = imported(manifest(framework="PyTorch", constraint="^1.8"))
    assert result.documents["software"]["spec"] == {"packages": ["torch>=1.8,<2"]}
    assert "software" not in result.documents["task"]["spec"]


def test_a_graph_that_is_not_onnx_is_described_with_where_it_is():
    spec = imported(CLEAN["mxnet"]).documents["model"]["spec"]
    assert spec["source"] == "external"
    assert spec["target"] == "MXNet symbol, https://example.org/models/model-symbol.json"
    assert spec["arguments"]["weights_path"] == "model-0000.params"


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 300)
    | st.floats(-9, 9)
    | st.sampled_from(["", "image", "x.onnx", "$a", "{{ a }}"])
    | st.text(max_size=4)
)
_NAMES = st.sampled_from(
    ["name", "version", "type", "parameters", "dimensions", "layout", "mean", "scale", "input_layer", "graph_path",
     "graph_checksum", "element_type", "color_mode", "a/b", "~#", "<<", "0"]
) | st.text(max_size=3)  # fmt: skip
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)
_INPUT = st.fixed_dictionaries(
    {"type": st.sampled_from(["image", "raw"]) | _ANYTHING},
    optional={"parameters": st.dictionaries(_NAMES, _ANYTHING, max_size=6)},
)
_WHOLE = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "Net 1"])},
    optional={
        **dict.fromkeys([key for key in KEYS if key != "name"] + ["other"], _ANYTHING),
        "inputs": st.lists(_INPUT, max_size=3) | _ANYTHING,
        "model": st.dictionaries(_NAMES, _ANYTHING, max_size=4),
        "preprocess": _ANYTHING,
    },
)


@settings(max_examples=120)
@given(_WHOLE)
def test_whatever_stands_in_a_manifest_it_is_refused_precisely_or_given_back_equal(document):
    data = json.dumps(document).encode()
    try:
        result = import_bytes(HERE, data)
    except ManifestError as error:
        refused = str(error)
        event("refused")
        assert re.match(r"here\.yml(:\d+)?: ", refused)
        return
    assert to_mlmodelscope(through_yaml(result.documents)) == meaning(HERE, data)
