import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.measure.traces.read import read_trace
from gnomon.store.store import open_store
from tests.report.test_otlp import collector, received  # noqa: F401 - a fixture
from tests.store.build import forecast, measurement


@pytest.fixture
def stored(tmp_path, examination):
    store = open_store(str(tmp_path / "store.db"))
    with store.begin("examine", {}, task="embed") as run:
        run.add(examination.measurement)
        run.add(forecast())
    return store


@pytest.fixture
def export(stored):
    def call(*arguments):
        return CliRunner().invoke(main, ["export", *map(str, arguments), "--store", stored.place])

    return call


@pytest.mark.parametrize(
    ("format", "name"),
    [("perfetto", "t.json"), ("otlp", "t.json"), ("parquet", "t"), ("csv", "t"), ("markdown", "t.md"),
     ("jsonl", "t.jsonl"), ("sqlite", "t.db")],
)  # fmt: skip
def test_every_format_is_written_once_and_never_over_another(export, tmp_path, format, name):
    done = export("last", "--format", format, "--out", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert f"written to {tmp_path / name}" in done.stdout
    assert (tmp_path / name).exists()
    again = export("last", "--format", format, "--out", tmp_path / name)
    assert (again.exit_code, again.stdout) == (2, "")
    assert "exists already; nothing is overwritten" in again.stderr


@pytest.mark.parametrize("format", ["perfetto", "otlp"])
def test_the_spans_come_back_by_import(export, examination, tmp_path, format):
    done = json.loads(export("last/0", "--format", format, "--out", tmp_path / "t.json", "--json").stdout)
    back = read_trace(tmp_path / "t.json")
    assert done["spans"] == len(back.spans) == len(examination.measurement.spans)
    assert [span.parent for span in back.spans] == [span.parent for span in examination.measurement.spans]


def test_spans_go_to_a_collector(export, collector, examination):  # noqa: F811
    done = export("last", "--format", "otlp", "--endpoint", collector.url, "--header", "X-Key=a=b")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"sent to {collector.url}" in done.stdout
    assert len(received(collector)) == len(examination.measurement.spans)
    assert collector.requests[0][1]["X-Key"] == "a=b"


def test_a_collector_that_takes_only_some_ends_with_code_1(export, collector):  # noqa: F811
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = 2, "too old"
    collector.answers = [(200, {}, answer.SerializeToString())]
    done = export("last", "--format", "otlp", "--endpoint", collector.url)
    assert done.exit_code == 1
    assert "spans: too old" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["last", "--format", "otlp", "--endpoint", "http://127.0.0.1:9/v1/traces"], 3, "cannot be reached"),
        (["last", "--format", "csv", "--endpoint", "http://x"], 2, "--endpoint is for --format otlp"),
        (["last", "--format", "otlp", "--endpoint", "http://x", "--out", "y"], 2, "not both"),
        (["last", "--format", "csv"], 2, "say where to with --out"),
        (["last", "--format", "jsonl"], 2, "say where to with --out"),
        (["last/1", "--format", "perfetto", "--out", "y"], 2, "holds no spans; measure with --level"),
        (["last/9", "--format", "csv", "--out", "y"], 2, "holds no measurement, trace or forecast"),
        (["zzz", "--format", "csv", "--out", "y"], 2, "no run is called 'zzz'"),
        (["last", "--format", "otlp", "--endpoint", "http://x", "--header", "novalue"], 2, "--header NAME=VALUE"),
    ],
)
def test_a_slip_is_told_with_its_code(export, arguments, code, message):
    done = export(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_run_without_spans_has_tables_but_no_trace(stored, export, tmp_path):
    with stored.begin("run", {}) as run:
        run.add(measurement())
    assert export("last", "--format", "perfetto", "--out", tmp_path / "t.json").exit_code == 2
    done = json.loads(export("last", "--format", "csv", "--out", tmp_path / "t", "--json").stdout)
    assert done["tables"] == ["measurements", "latencies"]


def test_exporting_never_imports_torch(stored, tmp_path):
    code = "import sys\nfrom gnomon.cli import main\nplace, out = sys.argv[1:]\n"
    code += "for format in ('perfetto', 'otlp', 'csv', 'parquet', 'markdown'):\n"
    code += "    arguments = ['export', 'last', '--format', format, '--out', f'{out}/{format}', '--store', place]\n"
    code += "    main(arguments, standalone_mode=False)\nprint('torch' in sys.modules)"
    command = [sys.executable, "-c", code, stored.place, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "markdown").exists()
