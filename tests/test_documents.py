"""The documents say what the code does: every command, every public name, every page reachable, no figure typed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gnomon

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_what_the_commands_say():
    written = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert written == load(ROOT / "docs" / "commands.py").page(), "run: python docs/commands.py"


def test_the_page_of_accuracies_is_what_the_stored_results_say():
    written = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
    assert written == load(ROOT / "docs" / "accuracy.py").page(), "run: python docs/accuracy.py"


def test_the_page_of_graph_networks_is_what_the_stored_run_says():
    written = (ROOT / "docs" / "gcn.md").read_text("utf-8")
    assert written == load(ROOT / "docs" / "gcn.py").page(), "run: python docs/gcn.py"


def test_every_public_name_exists_and_is_documented():
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    for name in gnomon.__all__:
        assert getattr(gnomon, name) is not None
        assert re.search(rf"\b{name}\b", page), f"docs/python.md does not mention {name}"


def test_rooms_that_are_functions_can_be_called():
    assert len(gnomon.devices()) >= 16
    for room in (gnomon.devices, gnomon.forecast, gnomon.measure, gnomon.sharpen):
        assert callable(room)


def test_every_page_is_reachable_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.MULTILINE), (
            f"{page.name} is in no toctree"
        )


def test_the_readme_shows_the_stored_result():
    readme = load(ROOT / "benchmarks" / "readme.py")
    assert readme.block() in (ROOT / "README.md").read_text("utf-8"), "run: python benchmarks/readme.py"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(example, tmp_path):
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example prints what it found"
