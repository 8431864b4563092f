import numpy as np
import pytest

from gnomon.forecast.forest import Forest, from_lightgbm

lightgbm = pytest.importorskip("lightgbm")


def fitted(rows=2000, trees=12):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 4))
    target = np.sin(2 * features[:, 0]) + features[:, 1] * (features[:, 2] > 0)
    settings = {"objective": "l2", "num_leaves": 9, "verbose": -1, "num_threads": 1, "deterministic": True}
    return lightgbm.train(settings, lightgbm.Dataset(features, target), trees), features


def test_a_forest_says_what_lightgbm_says():
    booster, features = fitted()
    ours = from_lightgbm(booster.dump_model()).predict(features)
    assert np.mean(np.abs(ours - booster.predict(features)) < 1e-6) > 0.999  # thresholds are kept in 32 bits


def test_a_forest_survives_being_stored():
    booster, features = fitted()
    forest = from_lightgbm(booster.dump_model())
    again = Forest.from_arrays(forest.arrays())
    np.testing.assert_allclose(again.predict(features), forest.predict(features), rtol=1e-5, atol=1e-6)


def test_rows_are_judged_one_by_one_whatever_stands_beside_them():
    booster, features = fitted()
    forest = from_lightgbm(booster.dump_model())
    alone = np.concatenate([forest.predict(features[i : i + 1]) for i in range(20)])
    np.testing.assert_array_equal(alone, forest.predict(features)[:20])


def test_a_tree_without_a_split_adds_its_one_value():
    forest = from_lightgbm({"tree_info": [{"tree_structure": {"leaf_value": 0.25}}]})
    assert forest.depth == 0
    np.testing.assert_array_equal(forest.predict(np.zeros((3, 2))), [0.25] * 3)
