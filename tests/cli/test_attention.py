"""`gnomon attention`: every verb prints its tables and its JSON, and says what is wrong with an argument."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.kernels.neighborhood_attention.record import AttentionProfile
from gnomon.store.store import open_store

GRID = ("--space", "64x64", "--window", "16")


def run(*arguments, exit_code=0):
    done = CliRunner().invoke(main, ["attention", *map(str, arguments)], env={"COLUMNS": "130"})
    assert done.exit_code == exit_code, done.output
    return done


def test_the_published_table_stands_beside_ours_with_its_source():
    text = run("simulate", "--published").stdout
    assert "arXiv:2504.16922" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("32768", "256x256", "30x48x80"))]
    assert [row[4:] for row in rows[:7]] == [
        ["16.0", "16.00", "15.1", "15.11"],
        ["16.0", "16.00", "16.0", "16.00"],
        ["16.0", "16.00", "16.0", "16.00"],
        ["10.2", "10.24", "7.5", "7.51"],
        ["10.2", "10.24", "10.2", "10.24"],
        ["11.1", "11.11", "5.4", "5.44"],
        ["11.1", "11.11", "11.1", "11.11"],
    ]
    found = json.loads(run("simulate", "--published", "--json").stdout)
    assert [case["measured"]["speedup"] for case in found["cases"]] == [8.3, 12.6, 13.3, 6.0, 12.3, 3.6, 12.1]
    assert all(case["ours"]["forecast"]["device"] == "NVIDIA H100 SXM" for case in found["cases"])


def test_strides_and_tiles_are_swept_on_several_devices():
    sweep = (*GRID, "--stride", 1, "--stride", "16x8", "--tile", "16x8", "--tile", "8x8/16x4", "--heads", 4,
             "--dtype", "float16", "--device", "A100-80GB-SXM", "--device", "T4")  # fmt: skip
    found = json.loads(run("simulate", *sweep, "--json").stdout)["simulated"]
    shown = [(one["problem"]["stride"], one["counted"]["tiles"]) for one in found]
    assert shown == [(stride, tiles) for stride in ([1, 1], [16, 8])
                     for tiles in ([[16, 8], [16, 8]], [[8, 8], [16, 4]])]  # fmt: skip
    assert all(len(one["forecasts"]) == 2 for one in found)
    assert found[2]["tile_bound"] > found[0]["tile_bound"]
    text = run("simulate", *sweep).stdout
    assert "Guessed: a windowed kernel keeps" in text
    assert text.count("NVIDIA Tesla T4") == 4


def test_the_best_tile_is_chosen_where_none_is_given():
    best = json.loads(run("simulate", *GRID, "--tiles", "--json").stdout)[0]["tiles"][0]["tiles"]
    (found,) = json.loads(run("simulate", *GRID, "--json").stdout)["simulated"]
    assert found["counted"]["tiles"] == best
    of_64 = json.loads(run("simulate", *GRID, "--elements", "64/32", "--json").stdout)["simulated"][0]
    assert [int(np.prod(tile)) for tile in of_64["counted"]["tiles"]] == [64, 32]


def test_valid_tiles_are_listed_for_a_grid_that_is_smaller_than_the_usual_tile_too():
    assert "8x4" in run("simulate", "--space", "5x3", "--window", 3, "--tiles").stdout  # no 128 tokens to put there
    text = run("simulate", "--space", "5x3", "--window", 3, "--tiles", "--elements", 8, "--rows", 2).stdout
    assert "5x3, window 3x3: 9 valid pairs of tiles" in text
    assert "and 7 more; --rows 9 lists all" in text


def test_a_device_that_lacks_the_dtype_is_told_and_the_others_answer():
    done = run("simulate", *GRID, "--device", "T4", "--device", "L4")
    assert "NVIDIA Tesla T4 has no bfloat16 peak" in done.stderr
    assert "NVIDIA L4" in done.stdout
    assert "has no bfloat16 peak" in run("simulate", *GRID, "--device", "T4", exit_code=2).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --space and --window, or --published"),
        (("--space", "8x8"), "--space and --window go together"),
        (("--published", *GRID), "--published has problems of its own"),
        (("--space", "8,8", "--window", 3), "wanted whole numbers with x between them, as 16x8; got '8,8'"),
        (("--space", "8x8", "--window", 9), "axis 0 has 8 tokens and 9 * 1 = 9"),
        ((*GRID, "--causal", "1"), "wanted 'all', or 0 or 1 for each of 2 axes; got '1'"),
        ((*GRID, "--tile", "16"), "query_tile needs one positive size per axis"),
        ((*GRID, "--tiles", "--elements", "96"), "elements must be a power of two; got 96"),
        ((*GRID, "--heads", 4, "--kv-heads", 3), "kv_heads must divide heads"),
        ((*GRID, "--device", "H1000"), "no device is called 'H1000'"),
    ],
)
def test_arguments_that_make_no_problem_are_usage(arguments, message):
    assert message in " ".join(run("simulate", *arguments, exit_code=2).output.split())


def test_causal_axes_are_named():
    text = run("simulate", "--space", "8x16x16", "--window", "3x5x5", "--causal", "1x0x0").stdout
    assert "causal along axis 0" in text


def test_a_profile_shows_who_ran_who_did_not_and_is_stored(tmp_path):
    store = tmp_path / "results.db"
    asked = ("profile", "--space", "12x12", "--window", 5, "--heads", 2, "--head-dim", 16, "--repeats", 3, "--backend",
             "reference", "--backend", "sdpa", "--backend", "triton", "--backward", "--store", store)  # fmt: skip
    document = json.loads(run(*asked, "--json").stdout)
    found = from_json(document["profiles"][0], AttentionProfile)
    assert {row.name for row in found.rows} == {"reference", "sdpa"}
    assert found.backward
    (row,) = open_store(str(store)).results(kind="attention-profile")
    assert open_store(str(store)).load(row.id) == found
    text = run(*asked).stdout
    assert "forward and backward, 3 rounds" in text
    assert "triton: Triton kernels run on a GPU" in text
    assert "backends: 'no' is not known" in run(*asked, "--backend", "no", exit_code=2).output


def test_the_accelerator_is_compared_with_dense_and_names_its_constants(tmp_path):
    asked = ("accelerator", "--tokens", 64, "--width", 64, "--heads", 4, "--rank", 8, "--trace", tmp_path / "t.json")
    text = run(*asked).stdout
    assert "a stand-in, seed 0: no trained model's" in " ".join(text.split())
    assert "ISSCC 2014" in text
    assert "ours, an assumption" in text
    found = json.loads(run(*asked, "--json").stdout)
    assert [one["run"]["name"] for one in found["runs"]] == [
        "dota, out-of-order", "dota, in-order", "dota, row-by-row", "dense"]  # fmt: skip
    assert found["runs"][0]["cycles"] < found["runs"][-1]["cycles"]
    events = json.loads((tmp_path / "t.json").read_text("utf-8"))["traceEvents"]
    assert {"dense: lane 3 softmax", "dota, out-of-order: lane 0 array"} <= {
        event["args"]["name"] for event in events if event["name"] == "thread_name"
    }


def test_a_real_mask_brings_its_own_sizes(tmp_path):
    mask = np.tril(np.ones((2, 24, 24), dtype=bool)) & ~np.tri(24, k=-5, dtype=bool)
    np.save(tmp_path / "mask.npy", mask)
    found = json.loads(run("accelerator", "--mask", tmp_path / "mask.npy", "--width", 32, "--causal", "--json").stdout)
    layer = found["runs"][0]["run"]["layer"]
    assert (layer["tokens"], layer["heads"], layer["head_dim"]) == (24, 2, 16)
    assert found["runs"][0]["run"]["pairs"] == mask.sum()
    assert found["runs"][-1]["run"]["pairs"] == 2 * 24 * 25 / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--retention", 0), "retention must be in (0, 1]; got 0.0"),
        (("--bits", 5), "bits must be one of 2, 4, 8, 16; got 5"),
        (("--rank", 0), "rank must be at least 1; got 0"),
        (("--array", "32"), "wanted ROWSxCOLS, as 32x16; got '32'"),
        (("--sram", "lots"), "wanted an amount of memory"),
        (("--mask", "nowhere.npy"), "nowhere.npy: wanted an array of booleans, .npy or .pt; it cannot be read"),
    ],
)
def test_an_accelerator_that_cannot_be_is_usage(arguments, message):
    assert message in run("accelerator", *arguments, exit_code=2).output


def test_a_pipeline_shows_every_arrangement_and_writes_a_trace(tmp_path):
    asked = ("pipeline", "--lengths", "50, 9,200", "--layers", 2, "--stages", 2, "--trace", tmp_path / "t.json")
    found = json.loads(run(*asked, "--json").stdout)
    assert found["batches"] == [[50, 9, 200]]
    assert found["arrangements"][0]["name"] == "dense padded"
    assert len(found["stages"]["sparse"]) == 2
    names = [e["name"] for e in json.loads((tmp_path / "t.json").read_text("utf-8"))["traceEvents"]]
    assert "sequence 0 layer 1" in names
    assert "sparse sorted buffered" in run("pipeline", "--draws", 2, "--batch", 4).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lengths", "3;4"), "wanted whole numbers with commas between them, got '3;4'"),
        (("--lengths", "0"), "lengths must be at least one, each at least 1"),
        (("--budget", 2), "budget must give each of the 3 stages a unit; got 2"),
        (("--rate", 0), "wanted a positive number, got 0.0"),
        (("--median", -1), "median > 0"),
    ],
)
def test_a_pipeline_that_cannot_be_is_usage(arguments, message):
    assert message in run("pipeline", *arguments, exit_code=2).output
