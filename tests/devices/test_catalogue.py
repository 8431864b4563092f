import csv
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UnknownName, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.devices import catalogue
from gnomon.devices.device import Device

MINE = """
name: Example 9000
vendor: Example
kind: gpu
architecture: Toy
aliases: [toy]
peak_flop_s:
  float32: {value: 20e12, source: sheet}
  float16: {value: 80e12, source: sheet}
memory_bytes: {value: 17179869184, source: sheet}
memory_bandwidth_b_s: {value: 600e9, source: sheet}
units: {value: 64, source: sheet}
sources:
  sheet: "Example data sheet, 2026"
"""


@pytest.fixture
def mine(tmp_path):
    """Writes a device file with `old` replaced by `new` and gives its path."""

    def write(old: str = "", new: str = "") -> str:
        assert old in MINE
        path = tmp_path / "mine.yaml"
        path.write_text(MINE.replace(old, new, 1) if old else MINE)
        return str(path)

    return write


@pytest.fixture(scope="module")
def devices() -> dict[str, Device]:
    return dict(zip(catalogue.names(), catalogue.every(), strict=True))


def test_the_accelerators_that_people_ask_for_are_there():
    wanted = """P4 P100-PCIE V100-PCIE V100-SXM2 T4 RTX-2080-TI A10 A100-40GB-PCIE A100-40GB-SXM A100-80GB-PCIE
        A100-80GB-SXM L4 L40S RTX-4090 H100-PCIE H100-SXM H200-SXM B200-SXM MI100 MI210 MI250X MI300X RTX-PRO-6000"""
    assert set(wanted.split()) <= set(catalogue.names())


@pytest.mark.parametrize("slug", catalogue.names())
def test_every_file_obeys_the_laws_that_a_users_file_must_obey(slug):
    device = catalogue.load(Path(catalogue.__file__).parent / "data" / f"{slug}.yaml")
    assert catalogue.get(slug) == device
    assert device.kind == "gpu"


@pytest.mark.parametrize("slug", catalogue.names())
def test_every_device_states_what_a_forecast_needs(slug):
    device = catalogue.get(slug)
    for fact in (device.clock_hz, device.cache_bytes, device.link_b_s, device.tdp_w):
        assert fact is not None
    assert {"float32", "float64"} <= device.vector_flop_s.keys()


@pytest.mark.parametrize("slug", catalogue.names())
def test_a_vendors_document_is_cited_with_its_year_or_marked_as_not_verified(slug):
    for text in catalogue.get(slug).sources.values():
        if text.startswith(("NVIDIA", "AMD", "system table")):
            assert re.search(r"\b20(1[6-9]|2[0-6])\b|not verified", text), text
        else:
            assert re.search(r"PCI Express|arithmetic|rate|clock", text), text


@pytest.mark.parametrize("slug", catalogue.names())
def test_memory_is_counted_in_the_gibibytes_that_chips_hold(slug):
    assert catalogue.get(slug).memory_bytes.value % 2**30 == 0


@pytest.mark.parametrize("slug", catalogue.names())
def test_float32_lanes_are_units_times_lanes_times_two_times_clock(slug):
    device = catalogue.get(slug)
    assert device.clock_hz is not None
    lanes = device.vector("float32") / (2 * device.clock_hz.value * device.units.value)
    nearest = min((64, 128), key=lambda count: abs(count - lanes))  # per multiprocessor or compute unit
    assert lanes == pytest.approx(nearest, rel=0.04)  # data sheets round, clocks to the boost that they name


@pytest.mark.parametrize("slug", [name for name in catalogue.names() if name not in ("P4", "P100-PCIE")])
def test_matrix_units_multiply_their_clock_by_a_power_of_two(slug):
    device = catalogue.get(slug)
    assert device.clock_hz is not None
    per_clock = device.peak("float16") / (device.clock_hz.value * device.units.value)
    nearest = min((2**i for i in range(8, 14)), key=lambda count: abs(count - per_clock))
    # Hopper's and Blackwell's matrix peaks are stated at a lower clock than the one of their lanes
    assert per_clock == pytest.approx(
        nearest, rel=0.085 if device.architecture.startswith(("Hopper", "Blackwell")) else 0.02
    )


def test_no_peak_is_the_sparse_figure_of_the_data_sheet(devices):
    """2:4 sparsity doubles the printed figure; dense int8 is at most twice dense float16, dense float8 exactly."""
    for slug, device in devices.items():
        peaks = device.peak_flop_s
        if "float8" in peaks:
            assert peaks["float8"].value == pytest.approx(2 * peaks["float16"].value, rel=0.02), slug
        if "tf32" in peaks and slug != "RTX-4090":
            assert peaks["tf32"].value == pytest.approx(peaks["float16"].value / 2, rel=0.02), slug


def test_dies_are_halves_of_their_package(devices):
    package, die = devices["MI250X"], devices["MI250X-GCD"]
    assert {name: q.value / 2 for name, q in package.peak_flop_s.items()} == pytest.approx(
        {name: q.value for name, q in die.peak_flop_s.items()}, rel=0.002
    )
    for field in ("memory_bytes", "memory_bandwidth_b_s", "units", "cache_bytes", "tdp_w"):
        assert getattr(package, field).value == 2 * getattr(die, field).value


def test_no_two_devices_answer_to_one_name(devices):
    keys = [{catalogue.key_of(name) for name in (slug, d.name, *d.aliases)} for slug, d in devices.items()]
    assert sum(map(len, keys)) == len(set().union(*keys))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("h100-sxm", "H100-SXM"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("Tesla T4", "T4"),
        ("nvidia geforce rtx 4090", "RTX-4090"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIE"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
    ],
)
def test_the_names_that_drivers_report_find_their_device(name, slug):
    assert catalogue.get(name) is catalogue.get(slug)


@given(st.data())
def test_case_and_separators_do_not_matter(data):
    slug = data.draw(st.sampled_from(catalogue.names()))
    written = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) if c != "-" else " " for c in slug)
    assert catalogue.get(f"  {written} ") is catalogue.get(slug)


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"no device is called 'H10O-SXM'. Did you mean 'H100-SXM'\? Known: A10, "):
        catalogue.get("H10O-SXM")


def test_a_name_that_fits_several_devices_is_answered_with_all_of_them():
    with pytest.raises(UnknownName, match=r"there are H100-PCIE, H100-SXM\. Choose one"):
        catalogue.get("h100")


def test_an_empty_name_is_an_error_that_lists_the_catalogue():
    with pytest.raises(UnknownName, match="Known: A10"):
        catalogue.get(" ")


@pytest.mark.parametrize("slug", catalogue.names())
def test_a_device_survives_json(slug):
    device = catalogue.get(slug)
    assert from_json(json.loads(json.dumps(to_json(device))), Device) == device


def test_a_users_file_works_like_the_catalogue(mine):
    device = catalogue.get(mine())
    assert device.name == "Example 9000"
    assert device.peak("float16") == 80e12
    assert device.vector("float64") == 20e12
    assert device.memory_bytes.value == 16 * 2**30


def test_the_complete_file_of_the_documentation_is_a_device(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "card.yaml"
    path.write_text(block)
    assert catalogue.get(str(path)).name == "Example Accelerator 9000"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units: {value: 64, source: sheet}\n", "", r"mine\.yaml: units: missing; wanted a table"),
        ("units:", "unit:", r"mine\.yaml: unit: unknown key\. Did you mean 'units'"),
        ("value: 64", "value: many", r"mine\.yaml: units\.value: wanted a number, got 'many'"),
        ("value: 64", "value: 64 SMs", r"mine\.yaml: units\.value: wanted a number, got '64 SMs'"),
        ("value: 64", "value: .inf", r"units\.value: wanted a"),
        ("value: 64", "value: -64", r"units\.value: wanted a positive number, got -64"),
        ("kind: gpu", "kind: tpu", r"mine\.yaml: kind: wanted one of 'gpu', 'cpu', got 'tpu'"),
        ("  float16: {", "  half: {", r"peak_flop_s\.half: wanted one of float64, .*got 'half'"),
        (
            "600e9, source: sheet",
            "600e9, source: shet",
            r"memory_bandwidth_b_s\.source: wanted a key of `sources` \(sheet\)",
        ),
        (
            "vendor: Example",
            "vendor: Example\nvendor: Twice",
            r"mine\.yaml: line 4: wanted YAML 1.2, got: .*duplicate key",
        ),
        ("aliases: [toy]", "aliases: [toy", r"mine\.yaml: line \d+: wanted YAML 1.2"),
        ("aliases: [toy]", "aliases: &a [toy]\nnotes: *a", r"may not use aliases"),
        ("name: Example 9000", "name: !!python/object/apply:os.system [echo]", r"mine\.yaml: "),
        (MINE, "- a\n- list\n", r"mine\.yaml: \(top\): wanted a table of keys and values"),
        (MINE, "", r"mine\.yaml: \(top\): wanted a table of keys and values, got None"),
        (MINE, "[" * 600, r"mine\.yaml: .*(nested too deep|wanted YAML)"),
        (MINE, "#" * 200_000, r"wanted a device file of some 2,000 bytes, got 200000"),
    ],
)
def test_a_wrong_file_is_told_with_file_and_key(mine, old, new, message):
    with pytest.raises(UsageError, match=message):
        catalogue.get(mine(old, new))


def test_every_problem_of_a_file_is_told_at_once(mine):
    path = mine("kind: gpu", "kind: tpu\nunknown: 1")
    with pytest.raises(UsageError) as told:
        catalogue.get(path)
    assert len(str(told.value).splitlines()) == 2


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file"):
        catalogue.get(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UsageError, match=r"bytes\.yml: wanted text in UTF-8"):
        catalogue.get(str(tmp_path / "bytes.yml"))


def test_the_kept_copy_equals_the_files_and_a_damaged_one_is_replaced(tmp_path):
    home = Path(os.environ["GNOMON_HOME"])
    catalogue._catalogue.cache_clear()
    from_files = catalogue.every()
    (copy,) = home.glob("catalogue-*.json")
    whole = copy.read_text()
    for text in (whole, whole[: len(whole) // 2], "{}", "[]", whole.replace("gnomon/device/1", "gnomon/device/0")):
        copy.write_text(text)
        catalogue._catalogue.cache_clear()
        assert catalogue.every() == from_files
        assert copy.read_text() == whole


def test_the_catalogue_is_read_even_when_nothing_can_be_kept(tmp_path, monkeypatch):
    catalogue._catalogue.cache_clear()
    home = tmp_path / "home"
    home.mkdir()
    for path in catalogue._files().values():
        assert path.is_file()
    monkeypatch.setenv("GNOMON_HOME", str(home))
    catalogue.every()
    (copy,) = home.glob("catalogue-*.json")
    copy.unlink()
    copy.mkdir()  # a folder where the file should go: neither reading nor replacing works
    catalogue._catalogue.cache_clear()
    assert len(catalogue.every()) == len(catalogue.names())


# where the public tables and the vendors' sheets disagree, as the notes of the files say
_OTHER = {("Tesla P100-PCIE-16GB", "freq_mhz"), ("Tesla P4", "num_sm")}


@pytest.mark.skipif("GNOMON_DATA" not in os.environ, reason="GNOMON_DATA names no folder of public figures")
def test_the_figures_agree_with_a_public_table_of_gpus():
    table = Path(os.environ["GNOMON_DATA"]) / "gpu-kernels" / "devices.csv"
    compared = 0
    for row in csv.DictReader(table.read_text().splitlines()):
        name = {"AMD Instinct MI250": "MI250-GCD"}.get(row["device"], row["device"])
        device = catalogue.get(name)
        facts = {
            "mem_bw_gbs": device.memory_bandwidth_b_s.value / 1e9,
            "num_sm": device.units.value,
            "freq_mhz": device.clock_hz.value / 1e6 if device.clock_hz else None,
            "fp32_gflops": device.vector("float32") / 1e9,
            "fp32_matrix_gflops": device.peak("float32") / 1e9,
        }
        for key, value in facts.items():
            if row[key]:
                agrees = value == pytest.approx(float(row[key]), rel=0.05)
                assert agrees is ((row["device"], key) not in _OTHER), (row["device"], key, value, row[key])
                compared += 1
    assert compared >= 40


@pytest.mark.skipif("GNOMON_DATA" not in os.environ, reason="GNOMON_DATA names no folder of public figures")
def test_the_figures_agree_with_a_public_table_of_systems():
    table = Path(os.environ["GNOMON_DATA"]) / "gpu-kernels" / "modern" / "systems.csv"
    ours = {
        "a100_pcie": "A100-80GB-PCIE", "a100_sxm": "A100-80GB-SXM", "b200_sxm": "B200-SXM", "h100_pcie": "H100-PCIE",
        "h100_sxm": "H100-SXM", "h200_sxm": "H200-SXM", "l4": "L4", "l40s": "L40S",
        "rtx_pro_6000_server": "RTX-PRO-6000",
    }  # fmt: skip
    seen = 0
    for row in csv.DictReader(table.read_text().splitlines()):
        if row["system"] not in ours:
            continue
        device = catalogue.get(ours[row["system"]])
        for key, precision in (("bf16_tflops", "bfloat16"), ("int8_tops", "int8"), ("fp8_tflops", "float8"),
                               ("fp4_tflops", "float4")):  # fmt: skip
            if float(row[key]) > 0:
                assert device.peak(precision) == pytest.approx(float(row[key]) * 1e12, rel=0.01), (row["system"], key)
        tolerance = 0.12 if device.name.startswith("NVIDIA RTX PRO") else 0.04  # 1597 on the sheet, 1792 in the table
        assert device.memory_bandwidth_b_s.value == pytest.approx(float(row["mem_bw_gbs"]) * 1e9, rel=tolerance)
        assert device.tdp_w is not None
        assert device.tdp_w.value == float(row["tdp_w"])
        assert device.link_b_s is not None
        assert device.link_b_s.value == float(row["intra_node_gbs"]) * 1e9, row["system"]
        assert device.pcie_b_s is not None
        assert device.pcie_b_s.value == float(row["pcie_gbs"]) * 1e9, row["system"]
        assert device.network_b_s is not None
        assert device.network_b_s.value == float(row["inter_node_gbs"]) * 1e9, row["system"]
        assert device.node_size is not None
        assert device.node_size.value == float(row["gpus_per_node"]), row["system"]
        seen += 1
    assert seen == len(ours)
