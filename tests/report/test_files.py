import os

import pytest

from gnomon.core.errors import NotRunnable
from gnomon.report.files import write_text


def test_the_old_file_stays_whole_when_writing_fails(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "broken \ud800")
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotRunnable, match=r"cannot write .*file/report\.html: .*--out"):
        write_text(tmp_path / "file" / "report.html", "text")


def test_a_report_has_the_rights_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    path = write_text(tmp_path / "report.html", "text")
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
