import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "malformed_manifests.py"


@pytest.fixture(scope="module")
def malformed():
    spec = importlib.util.spec_from_file_location("malformed_manifests", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["malformed_manifests"] = module
    spec.loader.exec_module(module)
    return module


def test_the_cases_are_different_and_the_same_each_time(malformed):
    cases = malformed.cases(200)
    assert cases == malformed.cases(200)
    assert len({name for name, _ in cases}) == len({data for _, data in cases}) == 200


def test_faults_of_reference_end_with_one_screen_and_run_nothing(malformed):
    result = malformed.check(50)
    assert result["failures"] == {}
    assert not result["canary"]
    assert result["passed"] == result["cases"] == 50


@pytest.mark.slow
def test_all_cases_end_with_one_screen_and_run_nothing(malformed):
    result = malformed.check(200, subprocesses=3)
    assert result["failures"] == {}
    assert result["passed"] == 200


def test_malformed_manifests_of_ml_modelscope_become_valid_ones_or_end_with_one_screen(malformed):
    result = malformed.check_imported(60)
    assert result["failures"] == {}
    assert not result["canary"]
    assert 0 < result["imported"] < 60


@pytest.mark.parametrize(
    ("code", "output", "why"),
    [
        (2, "Error: x", None),
        (1, "Error: x", "exit code 1"),
        (0, "fine", "exit code 0"),
        (2, "Traceback (most recent call last):", "a traceback"),
        (2, "", "no message"),
        (2, "x\n" * 26, "26 lines"),
    ],
)
def test_the_verdict_notices(malformed, code, output, why):
    assert malformed.verdict(code, output) == why


def test_the_well_formed_task_behind_the_cases_resolves(malformed, tmp_path):
    from gnomon.spec.resolve import resolve
    from tests.spec.write import write

    assert resolve(write(tmp_path, "good.yaml", malformed.task())).name == "small"
