"""docs/manifest.md says what the reader does."""

import dataclasses
import re
from pathlib import Path

import pytest

from gnomon.core.records import field_key
from gnomon.spec import manifest
from gnomon.spec.load import DEEPEST, LARGEST_FILE, MOST_NODES, load
from gnomon.spec.matrix import expand, plan
from gnomon.spec.resolve import resolve
from gnomon.spec.task import Column, Output, Protocol, Quality, Scenario, Stage, Stages, Training

PAGE = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RECORDS = [
    manifest.Metadata, manifest.Source, manifest.Input, manifest.ModelSpec, manifest.Provided, manifest.DatasetSpec,
    manifest.SplitSource, manifest.SplitSpec, Column,
    manifest.Determinism, manifest.SoftwareSpec, manifest.Cpu, manifest.Accelerator, manifest.HardwareSpec,
    manifest.TaskSpec, manifest.Matrix, Output, Stage, Stages, Training, Quality, Protocol,
    Scenario,
]  # fmt: skip


@pytest.mark.parametrize("text", EXAMPLES, ids=["whole", "variant", "matrix", "dataset"])
def test_the_examples_resolve(tmp_path, text):
    (tmp_path / "task.yaml").write_text(text)
    if "kind: Dataset" in text:
        assert load(tmp_path / "task.yaml").manifest().spec.splits["train"].count == 64
        return
    if "matrix" in text:
        assert len(plan(expand(tmp_path / "task.yaml"))) == 4
        return
    assert resolve(tmp_path / "task.yaml").mode == ("training" if "extends" in text else "inference")


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_key_is_explained(record):
    for field in dataclasses.fields(record):
        assert re.search(rf"\b{field_key(field)}\b", PAGE), f"docs/manifest.md does not mention {field_key(field)}"


@pytest.mark.parametrize(
    "record", [manifest.ReferenceLogSpec, manifest.Result, manifest.Expected], ids=lambda r: r.__name__
)
def test_every_key_of_a_reference_log_is_explained(record):
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text("utf-8")
    for field in dataclasses.fields(record):
        assert f"`{field_key(field)}`" in page, f"docs/verify.md does not mention {field_key(field)}"


def test_the_limits_are_those_of_the_reader():
    assert f"{LARGEST_FILE // 1024} KiB, {DEEPEST} levels, {MOST_NODES:,} values" in PAGE
