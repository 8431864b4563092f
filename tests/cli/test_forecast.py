import json
import re

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.write import task, write

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 64, "n_positions": 64}


@pytest.fixture
def config(tmp_path):
    return write(tmp_path, "config.json", json.dumps(GPT2))


def run(*arguments, exit_code=0):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)], env={"COLUMNS": "100"})
    assert done.exit_code == exit_code, done.output
    return done


def one(*arguments):
    """The only forecast of a command."""
    (found,) = json.loads(run(*arguments, "--json").stdout)["forecasts"]
    return found


def test_a_configuration_is_forecast_at_the_sizes_asked_for(config):
    small = one(config, "--device", "T4", "--batch", 2, "--seqlen", 16)
    large = one(config, "--device", "T4", "--batch", 4, "--seqlen", 32)
    assert (small["dims"], small["batch"]) == ({"B": 2, "L": 16}, 2)
    assert 3.9 * small["flop"] < large["flop"] < 4.5 * small["flop"]


def test_the_folder_of_a_configuration_will_do(config):
    assert one(config.parent, "--device", "T4") == one(config, "--device", "T4")


def test_options_may_come_before_the_task(config):
    assert one("--device", "T4", config) == one(config, "--device", "T4")


def test_train_is_training(config):
    step = one(config, "--device", "T4", "--mode", "train", "--seqlen", 8)
    assert step["mode"] == "training"
    assert {op["phase"] for op in step["ops"]} == {"forward", "backward", "optimizer"}


@pytest.mark.parametrize("dtype", ["tf32", "float8", "int8", "bfloat16"])
def test_a_model_is_forecast_in_a_dtype_it_is_not_cast_to(config, dtype):
    assert one(config, "--device", "H100-SXM", "--dtype", dtype)["dtype"] == dtype


def test_compiled_and_as_one_cuda_graph_it_gets_faster(config):
    eager, compiled, both = (
        one(config, "--device", "T4", *options)["total"]["value_s"]
        for options in ([], ["--compile"], ["--compile", "--cuda-graph"])
    )
    assert both < compiled < eager


def test_people_get_memory_energy_operators_with_intervals_and_what_bounds_them(config):
    shown = run(config, "--device", "T4").output
    assert "inference in float32" in shown
    assert "of 16 GiB" in shown
    assert "≤" in shown
    assert "addmm" in shown
    assert "launch" in shown


def test_this_machine_is_a_device_too(config):
    assert one(config, "--device", "cpu", "--seqlen", 8)["total"]["value_s"] > 0


def test_a_model_that_does_not_fit_is_forecast_and_says_what_it_needs(tmp_path):
    huge = {**GPT2, "n_layer": 48, "n_embd": 8192, "n_head": 64}
    done = run(write(tmp_path, "config.json", json.dumps(huge)), "--device", "T4", "--operators", 0)
    assert "GiB of 16 GiB" in " ".join(done.output.split())
    assert "does not fit: needs" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "V100-SXM2", "--dtype", "float8"], "V100 SXM2 32GB has no float8 peak; it has float64, float32"),
        (["--device", "H100-SXM", "--dtype", "float7"], "wanted a dtype out of .*; got 'float7'"),
        (["--device", "H100-SXN"], "no device is called 'H100-SXN'. Did you mean 'H100-SXM'"),
        (["--device", "T4", "--batch", "0"], "0 is not in the range x>=1"),
        (["--device", "T4", "--dim", "L=0"], "wanted NAME=SIZE with a positive whole number, got 'L=0'"),
        (["--device", "T4", "--seqlen", "65"], "65"),
        (["--device", "T4", "--predictor", "oracle"], "no predictor is called 'oracle'"),
        (["--device", "cpu", "--cuda-graph"], "is a CPU, which has no CUDA graphs; leave out --cuda-graph"),
    ],
)
def test_what_cannot_be_asked_is_told_with_exit_code_2(config, options, message):
    done = run(config, *options, exit_code=2)
    assert re.search(message, done.output), done.output


def test_a_size_that_has_a_name_and_no_number_is_told(tmp_path):
    document = task()
    document["spec"]["dims"] = {"V": 16, "F": 4}
    done = run(write(tmp_path, "task.yaml", document), "--device", "T4", exit_code=2)
    assert "E" in done.output


def test_a_task_that_nobody_knows_is_told():
    assert "no task is called" in run("nothing-like-it", "--device", "T4", exit_code=2).output


def test_the_help_names_the_options_of_a_task():
    shown = run("--help").output
    assert "forecast [OPTIONS] TASK" in shown
    assert "--cuda-graph" in shown


def test_a_sweep_answers_which_device_to_take(config, tmp_path):
    prices = write(tmp_path, "prices.yaml", "currency: USD\nper_hour: {T4: 0.35, L4: 0.7}\n")
    picture = tmp_path / "sweep.svg"
    given = ["sweep", config, "--batches", "1..4", "--seqlens", "8,16", "--dtypes", "float16,float8",
             "--device", "T4", "--device", "L4", "--prices", prices, "--plot", picture]  # fmt: skip
    told = json.loads(run(*given, "--json").stdout)
    assert len(told["sweep"]["points"]) == 3 * 2 * 2 * 2
    assert told["answer"].startswith("lowest cost: NVIDIA ")
    assert "tokens [" in told["answer"]
    assert picture.read_text("utf-8").startswith("<?xml")
    assert "no float8" in run(*given).output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batches", "0"], "wanted sizes such as 1,2,4 or 1..64"),
        (["--batch", "2"], "a sweep takes its sizes from --batches and --seqlens"),
        (["--dtypes", "float7"], "wanted a dtype out of"),
        (["--dtypes", "float8", "--device", "T4"], "no device can run the task: NVIDIA Tesla T4"),
        (["--plot", "x.gif"], "wanted a file called .svg or .png"),
        (["--best", "cost"], "no device that can run the task has a price"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_with_exit_code_2(config, options, message):
    options = options if "--device" in options else [*options, "--device", "L4"]
    options = options if "--batches" in options else [*options, "--batches", "1,2"]
    assert message in run("sweep", config, *options, exit_code=2).output


def test_a_task_may_be_called_as_a_verb_is():
    assert "no task is called 'sweep'" in run("--", "sweep", exit_code=2).output


def test_what_if_needs_a_table_or_a_unit(config):
    refused = run(config, "--device", "H100-SXM", "--sparsity", 0.73, "--dtype", "bfloat16", exit_code=2)
    assert "no speed-up of 73% sparsity is known" in refused.output
    plain, fewer = (one(config, "--device", "H100-SXM", "--dtype", "bfloat16", *o) for o in ([], ["--bits", 4]))
    assert fewer["peak_memory_bytes"] < plain["peak_memory_bytes"]
    run("break-even", "--kind", "bits", "--budget", "0.2s")
    known = one(config, "--device", "cpu", "--bits", 8)
    assert any("by the table measured on it" in warning for warning in known["warnings"])


def test_degrees_that_do_not_divide_are_told(config):
    divided = one(config, "--device", "H100-SXM", "--tensor-parallel", 2)
    assert divided["peak_memory_bytes"] < one(config, "--device", "H100-SXM")["peak_memory_bytes"]
    refused = run(config, "--device", "H100-SXM", "--tensor-parallel", 7, exit_code=2)
    assert "degree of 7 divides none" in refused.output
    assert (
        "cannot be cut" in run(config, "--device", "H100-SXM", "--tensor-parallel", 2, "--compile", exit_code=2).output
    )
