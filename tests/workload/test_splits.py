import hashlib

import numpy as np
import pytest
import torch

from gnomon.core import paths
from gnomon.core.errors import DamagedData, ManifestError, NotRunnable
from gnomon.spec.resolve import resolve
from gnomon.workload.application import application, batches
from gnomon.workload.program import build
from gnomon.workload.splits import columns_digest, read_split, rows
from gnomon.zoo.generators import clusters, normal
from tests.spec.write import task, write

LINEAR = {
    "source": "python",
    "target": "torch.nn:Linear",
    "arguments": {"in_features": 8, "out_features": 3},
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["B", 8]}],
}
NORMAL = {"source": {"generate": "gnomon.zoo.generators:normal", "arguments": {"rows": 10, "features": 8}, "seed": 3}}
URL = "https://example.org/data.npz"


def resolved(folder, mode="inference", feeds=None, **splits):
    dataset = {"splits": splits, **({"feeds": feeds} if feeds else {})}
    return resolve(write(folder, "task.yaml", task(dims={"B": 4}, model=LINEAR, dataset=dataset, mode=mode)))


def saved(folder, name="data.npz", **columns):
    np.savez(folder / name, **columns)
    return {"source": {"file": name}, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def test_batches_are_the_rows_in_order_and_begin_again(tmp_path):
    one = resolved(tmp_path, test=NORMAL)
    whole = torch.from_numpy(normal(10, 8, seed=3)["input"])
    given = [rows(one, "test", i)["input"] for i in range(3)]
    torch.testing.assert_close(torch.cat(given), torch.cat([whole, whole[:2]]))
    program = build(one)
    torch.testing.assert_close(program.inputs["input"], whole[:4])
    results = list(application(program).stream(batches(one, 3)))
    torch.testing.assert_close(results[1], program.predict({"input": whole[4:8]}))


def test_a_file_is_read_and_columns_that_are_no_inputs_are_left_to_others(tmp_path):
    columns = {"input": np.ones((6, 8), np.float32), "target": np.arange(6)}
    one = resolved(tmp_path, test=saved(tmp_path, **columns) | {"count": 6})
    assert set(rows(one, "test", 0)) == {"input"}
    np.testing.assert_array_equal(read_split(one, "test")["target"], columns["target"])
    with pytest.raises(ValueError, match="read-only"):
        read_split(one, "test")["input"][0] = 2


def test_a_single_array_is_a_column_called_like_the_split(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 8), np.float32))
    sha = hashlib.sha256((tmp_path / "x.npy").read_bytes()).hexdigest()
    one = resolved(tmp_path, input={"source": {"file": "x.npy"}, "sha256": sha})
    assert rows(one, "input", 0)["input"].shape == (4, 8)


def test_the_mode_chooses_the_split_unless_one_is_named(tmp_path):
    splits = {"train": NORMAL, "test": NORMAL}
    assert resolved(tmp_path, **splits).dataset.feeds == "test"
    assert resolved(tmp_path, mode="training", **splits).dataset.feeds == "train"
    assert resolved(tmp_path, feeds="train", **splits).dataset.feeds == "train"
    assert resolved(tmp_path, only=NORMAL).dataset.feeds == "only"
    with pytest.raises(ManifestError, match=r"spec.dataset.splits: which split feeds the model\? There is no 'test'"):
        resolved(tmp_path, a=NORMAL, b=NORMAL)


def test_one_changed_byte_of_a_split_is_refused_when_resolved_and_when_read(tmp_path):
    split = saved(tmp_path, input=np.ones((6, 8), np.float32))
    one = resolved(tmp_path, test=split)
    assert one.lock["dataset.splits.test"] == f"sha256:{split['sha256']}"
    data = bytearray((tmp_path / "data.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "data.npz").write_bytes(data)
    with pytest.raises(DamagedData, match=r"spec.dataset.splits.test.source: wanted SHA-256"):
        resolved(tmp_path, test=split)
    with pytest.raises(DamagedData, match=r"dataset.splits.test: wanted SHA-256"):
        read_split(one, "test")


def test_what_is_generated_can_be_pinned(tmp_path):
    sha = columns_digest(normal(10, 8, seed=3))
    assert read_split(resolved(tmp_path, test={**NORMAL, "sha256": sha}), "test")["input"].shape == (10, 8)
    other = {"source": {**NORMAL["source"], "seed": 4}, "sha256": sha}
    with pytest.raises(DamagedData, match=f"wanted SHA-256 {sha}, what was generated has"):
        read_split(resolved(tmp_path, test=other), "test")


def test_the_digest_of_columns_knows_names_types_shapes_and_values_and_not_their_order():
    a, b = np.arange(6), np.ones(6, np.float32)
    digest = columns_digest({"a": a, "b": b})
    assert columns_digest({"b": b, "a": a}) == digest
    others = [
        {"a": a, "c": b}, {"a": a, "b": b.astype(np.float64)}, {"a": a.reshape(2, 3), "b": b}, {"a": a + 1, "b": b},
    ]  # fmt: skip
    assert len({digest, *map(columns_digest, others)}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 11}, "count is 11, the split has 10 rows"),
        ({"schema": {"inptu": {"dtype": "float32"}}}, "no column 'inptu'. Did you mean 'input'"),
        (
            {"schema": {"input": {"dtype": "float64", "shape": [8]}}},
            r"column 'input' is declared float64 \[8\], it is float32 \[8\]",
        ),
        ({"schema": {"input": {"dtype": "float32", "shape": [7]}}}, r"declared float32 \[7\], it is float32 \[8\]"),
    ],
)
def test_rows_and_columns_are_checked(tmp_path, change, message):
    with pytest.raises(ManifestError, match=message):
        read_split(resolved(tmp_path, test={**NORMAL, **change}), "test")


def test_files_that_are_no_arrays_and_columns_of_several_lengths_are_refused(tmp_path):
    uneven = saved(tmp_path, a=np.ones(3), b=np.ones(4))
    with pytest.raises(ManifestError, match="columns of one length"):
        read_split(resolved(tmp_path, test=uneven), "test")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    sha = hashlib.sha256((tmp_path / "x.csv").read_bytes()).hexdigest()
    with pytest.raises(ManifestError, match=r"is no .npz or .npy file .*Name a callable in dataset.examples"):
        read_split(resolved(tmp_path, test={"source": {"file": "x.csv"}, "sha256": sha}), "test")
    pickled = saved(tmp_path, "p.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ManifestError, match=r"is no .npz or .npy file"):
        read_split(resolved(tmp_path, test=pickled), "test")


def test_an_address_is_refused_unless_its_file_is_in_the_cache(tmp_path):
    np.savez(tmp_path / "there.npz", input=np.ones((6, 8), np.float32))
    data = (tmp_path / "there.npz").read_bytes()
    split = {"source": {"url": URL}, "sha256": hashlib.sha256(data).hexdigest()}
    place = paths.home() / "data" / split["sha256"]
    with pytest.raises(NotRunnable) as caught:
        resolved(tmp_path, test=split)
    assert f"{URL} is not in the local cache, and Gnomon fetches nothing. Put it at {place}" in str(caught.value)
    place.parent.mkdir()
    place.write_bytes(data)
    assert read_split(resolved(tmp_path, test=split), "test")["input"].shape == (6, 8)
    place.write_bytes(data + b"x")
    with pytest.raises(DamagedData, match="fetch it anew"):
        resolved(tmp_path, test=split)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"provides": {}}, "a dataset has 'examples', 'splits' or both"),
        ({"splits": {"a": {"source": {}}}}, "exactly one of 'file', 'package', 'generate' and 'url', got none"),
        ({"splits": {"a": {"source": {"file": "x"}}}}, "wants 'sha256'"),
        (
            {"splits": {"a": {"source": {"file": "x", "seed": 1}, "sha256": "0" * 64}}},
            "a split from 'file' takes neither 'arguments' nor 'seed'",
        ),
        ({"splits": {"a": NORMAL}, "feeds": "b"}, "'feeds' is 'b', which is none of the splits: a"),
        ({"splits": {"a": NORMAL}, "feeds": "a", "examples": "a:b"}, "exclude each other"),
        ({"splits": {"a": {"source": {"url": "file:///etc/passwd"}, "sha256": "0" * 64}}}, "wanted an address"),
        (
            {"splits": {"a": {"source": {"file": "../x.npz"}, "sha256": "0" * 64}}},
            "may not leave the manifest's folder",
        ),
        ({"splits": {"a": {"source": {"generate": "os:system"}}}}, "splits.a.source.generate: .*os"),
    ],
)
def test_what_no_dataset_may_say(tmp_path, dataset, message):
    with pytest.raises(ManifestError, match=message):
        resolve(write(tmp_path, "task.yaml", task(dims={"B": 4}, model=LINEAR, dataset=dataset)))


def test_clusters_lie_around_their_centres():
    made = clusters(rows=500, features=4, classes=3, seed=0, spread=0.1)
    for label in range(3):
        points = made["input"][made["target"] == label]
        assert points.std(axis=0).max() == pytest.approx(0.1, rel=0.3)
    np.testing.assert_array_equal(made["input"], clusters(500, 4, 3, seed=0, spread=0.1)["input"])
