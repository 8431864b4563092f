import math

import numpy as np
import pytest

from gnomon.core.errors import UnknownName, UsageError
from gnomon.forecast.pack import read_pack
from gnomon.forecast.pack.devices import find_device, nearest, read_devices
from gnomon.forecast.pack.fp32 import products
from gnomon.forecast.pack.low_precision import attention, experts

from .pack_files import write_devices, write_graphs, write_pack

pytest.importorskip("pyarrow")

SYSTEMS = (
    "system,role,sm_version,mem_gib,mem_bw_gbs,bf16_tflops,int8_tops,fp8_tflops,fp4_tflops,tdp_w,intra_node_gbs\n"
    "new_gpu,heldout,90.0,80.0,3350.0,989.0,1978.0,1978.0,0.0,700,450.0\n"
)


def test_numbers_of_a_device_are_read_in_base_units(tmp_path):
    device = read_devices(write_devices(tmp_path / "devices.csv"))["alpha"].device
    assert device.memory_bandwidth_b_s.value == 900e9  # a gigabyte is 1e9 bytes
    assert device.peak("float32") == 14e12
    assert device.cache_bytes is not None
    assert device.cache_bytes.value == 6 * 2**20


@pytest.mark.parametrize("column", ["mem_bw_gbs", "num_sm", "fp32_gflops", "mem_gb"])
@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "fast"])
def test_a_missing_or_impossible_number_is_named_with_file_device_and_column(tmp_path, column, value):
    path = write_devices(tmp_path / "devices.csv", **{column: value})
    with pytest.raises(UsageError, match=f"devices.csv: alpha: {column}: wanted a positive number, got {value!r}"):
        read_devices(path)


def test_numbers_that_contradict_each_other_are_refused(tmp_path):
    path = write_devices(tmp_path / "devices.csv", freq_mhz="1.37")
    with pytest.raises(UsageError, match=r"devices\.csv: alpha: "):
        read_devices(path)


def test_a_system_borrows_what_its_table_does_not_say_from_the_device_with_the_nearest_numbers(tmp_path):
    (tmp_path / "systems.csv").write_text(SYSTEMS)
    entry = read_devices(tmp_path / "systems.csv")["new_gpu"]
    assert (entry.role, entry.device.units.value) == ("heldout", 132)
    assert entry.device.peak("float8") == 1978e12
    assert nearest(entry.device).name.startswith("NVIDIA H")


def test_the_nearest_device_does_not_depend_on_names(tmp_path):
    devices = read_devices(write_devices(tmp_path / "devices.csv"))
    from dataclasses import replace

    assert nearest(replace(devices["alpha"].device, name="NVIDIA T4")) == nearest(devices["alpha"].device)


def test_a_table_without_devices_is_refused(tmp_path):
    (tmp_path / "devices.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="wanted a table with a column `device` or `system`"):
        read_devices(tmp_path / "devices.csv")


def test_an_unknown_device_is_answered_with_the_nearest_name(tmp_path):
    with pytest.raises(UnknownName, match=r"no device is called 'alpa'\. Did you mean 'alpha'\?"):
        find_device(write_devices(tmp_path / "devices.csv"), "alpa")


def test_kernels_of_a_device_without_a_row_are_refused(tmp_path):
    write_pack(tmp_path)
    lines = (tmp_path / "devices.csv").read_text().splitlines()
    (tmp_path / "devices.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UsageError, match="no row for 'gamma', which kernels name"):
        read_pack(tmp_path)


def test_a_folder_that_is_no_pack_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"wanted a pack with devices.csv or modern/systems.csv"):
        read_pack(tmp_path)


def test_a_table_that_lacks_columns_is_refused_with_their_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    write_devices(tmp_path / "devices.csv")
    parquet.write_table(pa.table({"device": ["alpha"], "split": ["test"]}), tmp_path / "kernels.parquet")
    with pytest.raises(UsageError, match=r"kernels\.parquet: lacks the columns op_class, op, B"):
        read_pack(tmp_path)


def test_every_kind_of_every_device_is_read_with_its_role(tmp_path):
    content = read_pack(write_pack(tmp_path))
    kinds = {(one.device.name, one.kernels.kind) for one in content.samples}
    assert len(kinds) == len(content.samples) == 15
    assert [content.role(name) for name in ("alpha", "gamma", "nobody")] == ["train", "heldout", ""]


def test_a_call_hides_behind_its_host_until_it_outlasts_it(tmp_path):
    one = next(s for s in read_pack(write_pack(tmp_path)).samples if s.kernels.kind == "linear")
    short, long = one.measured(np.array([1e-6, 1e-3]))
    assert short == one.host.call_s
    assert long == pytest.approx(1e-3 + one.host.launch_s)


def test_a_product_costs_what_its_shape_says():
    kernels = products("bmm", *(np.array([float(x)]) for x in (3, 5, 7, 11)))
    assert kernels["flop"][0] == 2 * 3 * 5 * 7 * 11
    assert kernels["moved_bytes"][0] == 4 * 3 * (5 * 11 + 11 * 7 + 5 * 7)


def sizes(**changes):
    plain = {"batch": 2, "heads": 8, "kv_heads": 2, "queries": 64, "keys": 64, "head_size": 128, "causal": 0,
             "window": 0, "kv_bytes": 2, "library": 0}  # fmt: skip
    return {name: np.array([float(value)]) for name, value in {**plain, **changes}.items()}


def test_attention_counts_two_products_and_causal_attention_half_of_them():
    full, causal = (attention("prefill", sizes(causal=c)) for c in (0, 1))
    assert full["flop"][0] == 4 * 2 * 8 * 64 * 64 * 128
    assert causal["flop"][0] == full["flop"][0] / 2


def test_decoding_reads_the_keys_that_heads_share_once():
    one = attention("decode", sizes(queries=1, keys=1000))
    keys_and_values = 2 * 2 * 2 * 1000 * 128 * 2
    assert one["moved_bytes"][0] == keys_and_values + 2 * 2 * 8 * 128 * 2


def test_a_window_as_long_as_the_keys_is_no_window():
    free, wide = (attention("decode", sizes(queries=1, keys=1000, window=w)) for w in (0, 1000))
    assert free["flop"][0] == wide["flop"][0]
    assert attention("decode", sizes(queries=1, keys=1000, window=10))["moved_bytes"][0] < wide["moved_bytes"][0]


def test_a_mixture_reads_an_expert_at_most_once():
    one = lambda x: np.array([float(x)])  # noqa: E731
    few, many = (experts(one(0), one(t), one(64), one(128), one(8), one(2), one(1), one(1)) for t in (1, 10**6))
    weights = 3 * 64 * 128 * 2
    assert few["moved_bytes"][0] < 3 * weights
    assert math.isclose(many["moved_bytes"][0] - 2 * 2e6 * (2 * 64 + 3 * 128), 8 * weights, rel_tol=1e-6)


def test_a_graph_file_that_is_no_parquet_is_refused(tmp_path):
    from gnomon.forecast import opgraphs

    path = write_graphs(tmp_path)
    path.write_bytes(b"PAR?")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        opgraphs.read(path)
