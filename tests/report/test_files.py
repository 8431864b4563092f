import os
import subprocess
import sys

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


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX processes")
def test_a_full_disk_is_named_and_leaves_the_old_file_whole(tmp_path):
    path = write_text(tmp_path / "trace.json", "first")
    code = "import resource, sys; from pathlib import Path; from gnomon.report.files import write_text\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    code += "try: write_text(Path(sys.argv[1]), 'x' * 10**6)\nexcept Exception as error: print(error.outcome)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "disk-full\n"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["trace.json"]
