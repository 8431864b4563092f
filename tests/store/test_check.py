import re
import sqlite3

import pytest

from gnomon.store.check import check
from tests.store.build import forecast, measurement


@pytest.fixture
def filled(store):
    for _ in range(2):
        with store.begin("run", {}) as run:
            run.add(measurement())
            run.add(forecast())
            run.add(forecast("T4"))
    return store


def change(store, statement):
    """What a person with an SQLite shell could do."""
    connection = sqlite3.connect(store.place, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_sound_store_has_no_problems(filled):
    found = check(filled)
    assert (found.runs, found.results, found.broken, found.problems) == (2, 6, (), ())


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE results SET payload = 'x' WHERE id = 2", r"result 2 \(.*position 1\) is damaged"),
        ("UPDATE results SET digest = 'sha256:0' WHERE id = 3", "wanted the digest sha256:0"),
        ("UPDATE results SET device = 'H200' WHERE id = 3", "column device is not what the record says"),
        ("UPDATE results SET kind = 'change' WHERE id = 1", "column kind is not"),
        ("DELETE FROM results WHERE id = 1", "has lost 1 result"),
        ("DELETE FROM runs WHERE id = (SELECT min(id) FROM runs)", r"row \d of results has no run"),
    ],
    ids=["payload", "digest", "column", "kind", "removed", "orphans"],
)
def test_every_kind_of_tampering_is_found(filled, statement, problem):
    change(filled, statement)
    found = check(filled).problems
    assert re.search(problem, "\n".join(found))


def test_a_column_that_an_older_version_left_empty_is_no_damage(filled):
    change(filled, "UPDATE results SET device = NULL")
    assert check(filled).problems == ()


def test_a_broken_run_is_listed_and_is_no_damage(filled):
    run = filled.begin("run", {})
    change(filled, f"UPDATE runs SET pid = {2**22 + 1} WHERE id = '{run.id}'")
    found = check(filled)
    assert (found.broken, found.problems) == ((run.id,), ())
