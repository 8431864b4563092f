import dataclasses
import io

import pytest
from rich.console import Console

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.forecast.rental import Prices
from gnomon.forecast.sweep import answer, sweep
from gnomon.report.sweep import draw, print_sweep, sentences
from tests.forecast.build import matmul_graph

DEVICES = ("T4", "H100-SXM", "V100-SXM2")


def capture(sizes):
    return matmul_graph(m=512 * sizes.batch, n=2048, k=2048, layers=40, dtype=sizes.dtype or "float32")


@pytest.fixture(scope="module")
def swept():
    prices = Prices("USD", {"NVIDIA Tesla T4": 0.35, "NVIDIA H100 SXM": 2.5}, "a list of March")
    devices = [catalogue.get(name) for name in DEVICES]
    return sweep(capture, devices, batches=[1, 2, 4, 8], dtypes=["float16", "float8"], prices=prices)


def printed(swept, objective):
    console = Console(file=io.StringIO(), width=100)
    print_sweep(console, swept, answer(swept.points, objective))
    return console.file.getvalue()


def test_the_table_has_every_point_and_says_what_cannot_run(swept):
    shown = printed(swept, "throughput")
    assert shown.count("no float8") == 8
    assert len([line for line in shown.splitlines() if line.startswith((" T4", " H100", " V100"))]) == len(swept.points)
    assert "highest throughput: NVIDIA H100 SXM (float8, batch 8)" in " ".join(shown.split())
    assert "no price" in shown


def test_a_large_sweep_shows_the_best_of_each_device(swept):
    many = dataclasses.replace(swept, points=swept.points * 4)
    shown = printed(many, "cost")
    assert "the best of each device for cost" in shown
    assert sum(line.startswith((" T4", " H100", " V100")) for line in shown.splitlines()) == 3


def test_the_answer_names_rivals_prices_and_who_has_none(swept):
    found = answer(swept.points, "cost")
    said = " ".join(sentences(swept, found))
    assert "USD per million samples [" in said
    assert "1 devices have no price" in said
    assert said.endswith("Prices: a list of March.")
    assert "Not told apart from it" in " ".join(sentences(swept, found._replace(rivals=(found.best,))))
    assert "No other device's interval reaches it." in " ".join(sentences(swept, found._replace(rivals=())))


@pytest.mark.parametrize(("suffix", "head"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_it_is_drawn_the_same_each_time(swept, tmp_path, suffix, head):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        draw(swept, path)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(head)
    assert first == second
    if suffix == ".svg":
        assert b"NVIDIA H100 SXM (float8)" in first


def test_other_files_are_refused(swept, tmp_path):
    with pytest.raises(UsageError, match=r"wanted a file called .svg or .png, got .*x.gif"):
        draw(swept, tmp_path / "x.gif")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        draw(swept, tmp_path / "none" / "x.svg")
