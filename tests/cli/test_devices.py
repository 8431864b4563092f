import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.devices import catalogue
from gnomon.devices.device import Device


def run(*arguments: str):
    return CliRunner().invoke(main, ["devices", *arguments])


def test_the_list_shows_every_device_sorted_by_its_peak_at_16_bits():
    lines = run().stdout.splitlines()
    slugs = [line.split()[0] for line in lines if line.split() and line.split()[0] in catalogue.names()]
    assert sorted(slugs) == catalogue.names()
    assert slugs[0] == "B200-SXM"
    assert slugs.index("H100-SXM") < slugs.index("A100-80GB-SXM") < slugs.index("T4") < slugs.index("P4")


def test_the_list_fits_a_terminal_of_80_columns():
    assert max(map(len, run().stdout.splitlines())) <= 80


def test_the_list_as_json_holds_whole_devices_in_the_same_order():
    document = json.loads(run("--json").stdout)
    assert next(iter(document)) == "B200-SXM"
    assert {name: from_json(item, Device) for name, item in document.items()} == {
        name: catalogue.get(name) for name in catalogue.names()
    }


def test_one_device_is_shown_with_every_source_and_note():
    text = " ".join(run("l4").stdout.split())
    device = catalogue.get("L4")
    for citation in (*device.sources.values(), *device.notes):
        assert citation in text
    assert "121 TFLOP/s" in text
    assert "24 GiB" in text
    assert "2.04 GHz" in text


def test_one_device_as_json_is_its_record():
    assert from_json(json.loads(run("T4", "--json").stdout), Device) == catalogue.get("T4")


def test_a_users_file_is_shown_like_the_catalogue(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{name: Mine, vendor: Me, kind: gpu, architecture: A, peak_flop_s: {float32: {value: 1e12, source: s}},"
        " memory_bytes: {value: 1e9, source: s}, memory_bandwidth_b_s: {value: 1e11, source: s},"
        " units: {value: 8, source: s}, sources: {s: my own sheet}}"
    )
    result = run(str(path))
    assert result.exit_code == 0
    assert "my own sheet" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("H10O-SXM",), "UnknownName: no device is called 'H10O-SXM'. Did you mean 'H100-SXM'?"),
        (("none.yaml",), "UsageError: none.yaml: cannot be read"),
        (("T4", "--probe"), "give either it or NAME"),
        (("--threads", "2"), "--threads belongs to --probe"),
        (("--probe", "--threads", "0"), "Invalid value for '--threads'"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_2(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_probe_with_too_many_threads_cannot_run_here():
    result = run("--probe", "--threads", "100000")
    assert result.exit_code == 3
    assert "NotRunnable: wanted 100000 threads" in result.stderr


@pytest.mark.slow
def test_a_probe_measures_this_machine_and_keeps_the_document_clean():
    result = run("--probe", "--json")
    document = json.loads(result.stdout)
    assert from_json(document["devices"][0], Device).kind == "cpu"
    assert document["host"]["schema"] == "gnomon/host/1"
    assert "memory bandwidth" in result.stderr
