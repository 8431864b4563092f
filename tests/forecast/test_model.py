import json

import numpy as np
import pytest

from gnomon.core.errors import DamagedData
from gnomon.forecast.model import SHIPPED, Model, Spread, load, shipped

from .test_residual import expert


def model():
    return Model(
        {"linear/single": [expert("a", 0.1), expert("b", -0.2)]}, {"linear/single": Spread(0.1, 0.2)}, {"x": 1}
    )


def test_a_model_survives_being_saved(tmp_path):
    model().save(tmp_path)
    again = load(tmp_path)
    assert again.devices == {"a", "b"}
    assert again.spreads == model().spreads
    assert again.about == {"x": 1}
    features = np.zeros((2, 40))
    for ours, theirs in zip(model().experts["linear/single"], again.experts["linear/single"], strict=True):
        assert ours.traits == theirs.traits
        np.testing.assert_allclose(ours.error(features), theirs.error(features), rtol=1e-6)


def test_saving_twice_writes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        model().save(tmp_path / name)
    first, second = (
        [(tmp_path / name / f"model.{kind}").read_bytes() for kind in ("npz", "json")] for name in ("one", "two")
    )
    assert first == second


def test_a_damaged_model_is_refused_with_its_folder(tmp_path):
    model().save(tmp_path)
    (tmp_path / "model.npz").write_bytes(b"not an archive")
    with pytest.raises(DamagedData, match=rf"{tmp_path}: the fitted predictor cannot be read"):
        load(tmp_path)


def test_an_expert_whose_arrays_are_missing_is_refused(tmp_path):
    model().save(tmp_path)
    document = json.loads((tmp_path / "model.json").read_text())
    document["experts"][0]["arrays"] = "999"
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(DamagedData, match="cannot be read"):
        load(tmp_path)


def test_intervals_grow_with_distance_and_never_shrink():
    widths = [model().spread("linear/single", distance).whole for distance in (0, 1, 2, 10)]
    assert widths == sorted(widths)


def test_the_shipped_model_is_small_says_where_it_comes_from_and_holds_no_held_out_gpu():
    found = shipped()
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 2e6
    assert "NeuSight" in found.about["attribution"]
    assert "aiconfigurator" in found.about["attribution"]
    assert found.about["data"]["kernels.parquet"].startswith("sha256:")
    heldout = ("H100", "H200", "L4", "B200", "B300", "MI250", "A100-SXM4-40GB", "A100 80GB", "h100", "h200", "b200")
    assert not [name for name in found.devices if any(part in name for part in heldout) and name != "l40s"]
    assert len(found.devices) == 10


def test_the_shipped_archive_needs_no_pickle():
    with np.load(SHIPPED / "model.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fi" for name in archive.files)
