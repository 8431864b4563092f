"""A task that cannot be resolved leaves a failed run with a named outcome where the command keeps runs."""

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.store.store import open_store

MANIFEST = "apiVersion: gnomon/v2\nkind: Task\nmetadata: {name: newer, version: 1.0.0}\nspec: {}\n"


@pytest.mark.parametrize("command", ["run", "trace", "loadtest", "forecast", "sharpen", "examine", "aa"])
def test_a_manifest_of_an_unknown_major_version_is_a_failed_run_with_that_outcome(command, tmp_path):
    (tmp_path / "task.yaml").write_text(MANIFEST)
    store = tmp_path / "results.db"
    result = CliRunner().invoke(main, [command, str(tmp_path / "task.yaml"), "--store", str(store)])
    assert result.exit_code == 2
    assert "gnomon/v2" in result.stderr
    (run,) = open_store(str(store)).runs()
    assert (run.command, run.status, run.outcome) == (command, "failed", "unknown-version")
    assert "gnomon/v2" in (run.error or "")


def test_an_unknown_task_is_a_failed_run_by_the_name_that_was_asked_for(tmp_path):
    store = tmp_path / "results.db"
    result = CliRunner().invoke(main, ["run", "gcn-node-clasification", "--store", str(store)])
    assert result.exit_code == 2
    (run,) = open_store(str(store)).runs()
    assert (run.task, run.outcome) == ("gcn-node-clasification", "bad-input")


def test_a_store_that_cannot_be_opened_does_not_hide_why_the_task_was_refused(tmp_path):
    (tmp_path / "results.db").write_text("no database, but text of more than a few bytes" * 10)
    result = CliRunner().invoke(main, ["run", "gcn-node-clasification", "--store", str(tmp_path / "results.db")])
    assert result.exit_code == 2
    assert "gcn-node-classification" in result.stderr
