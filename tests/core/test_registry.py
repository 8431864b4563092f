import sys
from importlib import metadata

import pytest

from gnomon.core.errors import NotRunnable, UnknownName, UsageError
from gnomon.core.registry import Registry

TARGETS = {
    "bytes": "gnomon.core.units:parse_bytes",
    "nested": "gnomon.core.stats:Interval.__slots__",
    "gone": "gnomon.core.units:parse_miles",
    "bare": "gnomon.core.units",
    "absent": "a_package_that_nobody_has:thing",
}


@pytest.fixture
def registry():
    return Registry("unit", TARGETS)


def test_an_entry_is_imported_when_it_is_first_asked_for(registry, monkeypatch):
    monkeypatch.delitem(sys.modules, "gnomon.core.units", raising=False)
    assert "bytes" in registry
    assert registry.names() == sorted(TARGETS) == list(registry)
    assert "gnomon.core.units" not in sys.modules
    assert registry.get("bytes")("1kB") == 1000
    assert registry.get("nested") == ("value", "low", "high", "level", "n")


def test_an_unknown_name_gets_the_nearest_and_all_known_ones(registry):
    with pytest.raises(
        UnknownName, match=r"no unit is called 'byte'\. Did you mean 'bytes'\? Known: absent, bare, bytes"
    ):
        registry.get("byte")
    with pytest.raises(UnknownName, match="Known: none"):
        Registry("unit", {}).get("byte")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "unit 'absent' needs a package that is missing here: .*a_package_that_nobody_has"),
        ("gone", "unit 'gone' is registered as 'gnomon.core.units:parse_miles', which is not there"),
        ("bare", "unit 'bare' is registered as 'gnomon.core.units', which is not there"),
    ],
)
def test_an_entry_that_cannot_be_had_says_why(registry, name, message):
    with pytest.raises(NotRunnable, match=message):
        registry.get(name)


def test_an_error_of_ours_while_importing_comes_through(registry, tmp_path, monkeypatch):
    (tmp_path / "module_that_refuses.py").write_text(
        "from gnomon.core.errors import UsageError\nraise UsageError('not on a Sunday')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry.add("sunday", "module_that_refuses:thing")
    with pytest.raises(UsageError, match="not on a Sunday"):
        registry.get("sunday")


def test_a_name_is_taken_once(registry):
    registry.add("seconds", "gnomon.core.units:parse_seconds")
    registry.add("seconds", "gnomon.core.units:parse_seconds")
    with pytest.raises(ValueError, match=r"unit 'bytes' is already gnomon\.core\.units:parse_bytes"):
        registry.add("bytes", "gnomon.core.units:parse_seconds")
    assert registry.get("seconds")("1m") == 60


def test_an_installed_package_adds_entries_and_replaces_none(tmp_path, monkeypatch):
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = ["[gnomon.test_units]", "bytes = os:sep", "seconds = gnomon.core.units:parse_seconds"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(metadata.entry_points(group="gnomon.test_units")) == 2
    registry = Registry("unit", TARGETS, group="gnomon.test_units")
    assert registry.get("seconds")("1m") == 60
    assert registry.get("bytes")("1kB") == 1000  # ours stays
