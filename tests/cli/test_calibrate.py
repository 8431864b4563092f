import pytest
from click.testing import CliRunner

from gnomon.cli import main


def run(*arguments, tmp_path):
    return CliRunner().invoke(main, ["calibrate", *arguments, "--store", str(tmp_path / "results.db")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "3s"], "a calibration takes at least 10 s; got a budget of 3 s"),
        (["--budget", "soon"], "wanted a time such as '2m', '30s' or '250ms'; got 'soon'"),
        (["--device", "tpu"], "kernels are measured on 'cpu', 'cuda' or 'cuda:<index>'; got 'tpu'"),
        (["--device", "cuda", "--threads", "2"], "--threads belongs to --device cpu"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_2(arguments, message, tmp_path):
    result = run(*arguments, tmp_path=tmp_path)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["--device", "cuda:9"], ["--threads", "4096"]])
def test_what_this_machine_lacks_is_exit_3(arguments, tmp_path):
    assert run(*arguments, tmp_path=tmp_path).exit_code == 3
