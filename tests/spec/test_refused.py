"""What DLSpec's card of bad input lists: each is refused with a message that points at it, and nothing is run."""

import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.write import MODEL, SIZES, task

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
WEIGHTS = {**MODEL, "weights": {"file": "./weights.safetensors", "sha256": "0" * 64}}
SPLITS = {"splits": {"test": {"source": {"url": "https://example.org/x.npz"}, "sha256": "0" * 64}}}


def text(**spec):
    return json.dumps(task(**spec), indent=1)


CASES = {
    "an unknown key": (text(thread=2), 2, "spec.thread: unknown key. Did you mean 'threads'?"),
    "a key given twice": (text().replace('"kind"', '"kind": "Task", "kind"'), 2, "kind: the key is given twice"),
    "an alias bomb": (BOMB, 2, "more than 50,000 values once its aliases are expanded"),
    "a path that leaves": (text(model={"file": "../model.yaml"}), 2, "may not leave the manifest's folder"),
    "a checksum that differs": (text(model=WEIGHTS), 4, f"spec.model.weights: wanted SHA-256 {'0' * 64}"),
    "NaN": (text(protocol={"warmup_s": "NAN"}).replace('"NAN"', ".nan"), 2, "warmup_s: .nan is no number"),
    "infinity": (text(protocol={"warmup_s": "INF"}).replace('"INF"', ".inf"), 2, "warmup_s: .inf is no number"),
    "a negative batch": (text(dims={**SIZES, "B": -1}), 2, "spec.dims.B: wanted a whole number from 1"),
    "an unknown dtype": (text(dtype="float31"), 2, "spec.dtype: wanted one of 'float64'"),
    "an empty version": (json.dumps(task(version="")), 2, "metadata.version: wanted a version in quotes"),
    "bytes that are no UTF-8": (b"kind: Task\nname: \xff\n", 2, ":2: wanted UTF-8 text, got the byte 0xff"),
    "an address": (text(dataset=SPLITS), 3, "https://example.org/x.npz is not in the local cache"),
    "another format": (text().replace("gnomon/v1", "gnomon/v3"), 2, "this manifest is written in gnomon/v3"),
    "inline code": (
        text(model={**MODEL, "stages": {"preprocess": {"code": "def preprocess(c, b): ..."}}}), 2, "gnomon trust",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_with_a_message_that_points_at_it(name, tmp_path):
    document, code, message = CASES[name]
    (tmp_path / "weights.safetensors").write_bytes(b"other bytes")
    path = tmp_path / "task.yaml"
    path.write_bytes(document if isinstance(document, bytes) else document.encode())
    result = CliRunner().invoke(main, ["resolve", str(path)])
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert str(path) in result.stderr
    assert result.stdout == ""
