import json
import subprocess
import sys

from click.testing import CliRunner

from gnomon.cli import main


def test_the_doctor_shows_each_part_and_ends_well():
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    for part in ("python", "torch", "c++ compiler", "allocator", "hardware counters", "disk"):
        assert f" {part} " in result.stdout


def test_the_doctor_as_json_gives_cost_and_remedy_of_what_is_not_ok():
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert {item["status"] for item in findings} <= {"ok", "missing", "slow"}
    for item in findings:
        assert set(item) == {"name", "status", "detail", "cost", "remedy"}
        assert (item["cost"] == "") is (item["status"] == "ok")


def test_a_broken_torch_is_exit_3_and_everything_else_is_still_examined(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so is missing')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from gnomon.cli import main; main(['doctor', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "NotRunnable: torch does not work here: ImportError: libtorch_cpu.so is missing" in done.stderr
    findings = {item["name"]: item["status"] for item in json.loads(done.stdout)}
    assert findings["torch"] == "missing"
    assert findings["disk"] == "ok"
