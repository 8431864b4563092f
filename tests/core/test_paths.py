from pathlib import Path

import pytest

from gnomon.core.errors import NotRunnable
from gnomon.core.paths import home


def test_the_home_folder_is_where_the_environment_says_and_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("GNOMON_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b"
    assert home().is_dir()


def test_without_a_word_it_is_in_the_cache_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("GNOMON_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "gnomon"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert home() == tmp_path / "me" / ".cache" / "gnomon"
    monkeypatch.setenv("GNOMON_HOME", "~/mine")
    assert home() == Path(tmp_path / "me" / "mine")


def test_a_home_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GNOMON_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(
        NotRunnable, match=r"home cannot be made \(Not a directory\); set GNOMON_HOME to a folder of yours"
    ):
        home()
