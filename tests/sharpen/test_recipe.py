import pytest
import torch

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.sharpen import recipe as recipes_module
from gnomon.sharpen.recipe import Variant, check_name, effective_options, get, prepare, recipes, variant
from tests.sharpen.tiny import PLUGINS, program

SHIPPED = [name for name in recipes().names() if name not in PLUGINS]


def test_the_shipped_recipes_are_these():
    assert SHIPPED == [
        "attend.detect",
        "attend.pack",
        "attend.window",
        "bf16",
        "compile",
        "int8-dynamic",
        "onnx-fp32",
        "onnx-int8",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_describes_itself_under_its_own_name(name):
    recipe = get(name)
    assert recipe.name == name
    assert recipe.title
    assert recipe.description.endswith(".")
    assert set(recipe.beside) <= set(SHIPPED)
    assert all(set(changed) <= set(recipe.options) for changed in recipe.beside.values())


def test_an_unknown_recipe_is_met_with_the_nearest_one():
    for look_up in (get, check_name):
        with pytest.raises(UsageError, match=r"no recipe is called 'onx-int8'\. Did you mean 'onnx-int8'"):
            look_up("onx-int8")
    with pytest.raises(UsageError, match="no recipe is called 'compil'"):
        check_name("bf16+compil")


def test_a_combination_applies_each_recipe_once():
    for look_up in (get, check_name):
        with pytest.raises(UsageError, match="each recipe once; got 'bf16\\+bf16'"):
            look_up("bf16+bf16")


def test_an_unknown_option_is_met_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"recipe 'compile' has no option 'modes'\. Did you mean 'mode'"):
        effective_options(get("compile"), {"modes": "default"})
    assert effective_options(get("compile"), {"mode": "max-autotune"})["mode"] == "max-autotune"


def test_a_combination_has_the_options_of_its_parts_under_their_names():
    assert set(get("bf16+compile").options) == {"compile.mode", "compile.fullgraph"}


def test_a_combination_applies_its_parts_from_left_to_right(tmp_path):
    given = program()
    before = given.step()[0]
    options = {"artifacts": str(tmp_path), "test-drifts.amount": 2.0}
    torch.testing.assert_close(
        prepare(given, {"recipe": "test-drifts+test-doubles", **options}).step()[0], (before + 2) * 2
    )
    torch.testing.assert_close(
        prepare(given, {"recipe": "test-doubles+test-drifts", **options}).step()[0], before * 2 + 2
    )


def test_prepare_refuses_with_the_reason_what_does_not_apply(tmp_path):
    with pytest.raises(NotRunnable, match="'bf16' does not apply to tiny: autocast starts from float32"):
        prepare(program(dtype="float64"), {"recipe": "bf16", "artifacts": str(tmp_path)})


def test_a_variant_names_a_function_that_is_there_and_carries_what_it_needs(tmp_path):
    made = variant("compile", tmp_path, {"mode": "default"})
    assert made == Variant(
        "compile", made.prepare, {"recipe": "compile", "artifacts": str(tmp_path), "mode": "default"}
    )
    module, _, name = made.prepare.partition(":")
    assert module == recipes_module.__name__
    assert getattr(recipes_module, name) is prepare
