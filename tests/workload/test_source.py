import dataclasses
import sys

import pytest
import torch
from torch import nn

from gnomon.core.digest import file_digest
from gnomon.core.errors import DamagedData, ManifestError, NotRunnable
from gnomon.spec.task import Model, Tensor
from gnomon.workload import program, source
from tests.workload.tasks import BERT, IDS, family, linear, task

ROW = (Tensor("input", "float32", ("B", 8)),)


def python(target, arguments=None, **changes):
    return task(Model("m", "1", "python", target, arguments or {}, ROW), **changes)


@pytest.fixture
def manifest_folder(tmp_path):
    """A folder with code that leaves a mark when it runs."""
    name = f"local_code_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nfrom torch import nn\n"
        "def build():\n    return nn.Linear(8, 3)\n"
    )
    yield tmp_path, name
    sys.modules.pop(name, None)


def test_code_next_to_a_manifest_does_not_run_without_trust(manifest_folder, monkeypatch):
    folder, name = manifest_folder
    with pytest.raises(ManifestError, match=r"there is no module .* with --trust"):
        program.build(python(f"{name}:build", folder=str(folder)))
    monkeypatch.syspath_prepend(folder)  # even where Python itself would find it
    with pytest.raises(ManifestError, match=r"outside the installed packages; its code was not run"):
        program.build(python(f"{name}:build", folder=str(folder)))
    assert not (folder / "ran").exists()


def test_code_next_to_a_trusted_manifest_runs_and_the_path_is_put_back(manifest_folder):
    folder, name = manifest_folder
    path = list(sys.path)
    built = program.build(python(f"{name}:build", folder=str(folder), trusted=True))
    assert built.step()[0].shape == (2, 3)
    assert (folder / "ran").exists()
    assert sys.path == path


@pytest.mark.parametrize("target", ["os:system", "subprocess:run", "builtins:exec", "runpy:run_path"])
def test_the_standard_library_is_refused(target):
    with pytest.raises(ManifestError, match=r"standard library.*refused"):
        source.load(target, python(target), "model.target")


def test_a_standard_function_seen_through_an_installed_package_is_refused():
    with pytest.raises(ManifestError, match="belongs to Python's standard library"):
        source.load("gnomon.workload.source:contextmanager", python("x:y"), "model.target")


def test_functions_of_torch_that_run_files_are_refused():
    with pytest.raises(ManifestError, match="no module class"):
        program.build(python("torch.hub:load", {"repo_or_dir": ".", "model": "m", "source": "local"}))


@pytest.mark.parametrize("target", ["torch.nn", "torch.nn:Linear.forward", "torch nn:Linear", "../code:build", ":x"])
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(ManifestError, match=r"wanted 'package.module:callable'"):
        program.build(python(target))


def test_a_missing_module_a_missing_name_and_a_wrong_argument_are_told_apart():
    with pytest.raises(ManifestError, match=r"no module 'no_such_package' here"):
        program.build(python("no_such_package:build"))
    with pytest.raises(ManifestError, match=r"no module 'torch.no_such'"):
        program.build(python("torch.no_such:build"))
    with pytest.raises(ManifestError, match=r"has no 'Linaer'. Did you mean 'Linear'\?"):
        program.build(python("torch.nn:Linaer"))
    with pytest.raises(ManifestError, match=r"does not take model.arguments \(in_feature\)"):
        program.build(python("torch.nn:Linear", {"in_feature": 8}))
    with pytest.raises(ManifestError, match=r"returned a ndarray; wanted a torch.nn.Module"):
        program.build(python("numpy:ones", {"shape": 3}))


def test_a_wrong_class_or_value_of_a_configuration_is_named():
    def build(target, arguments):
        return program.build(task(Model("m", "1", "huggingface", target, arguments, (IDS,))))

    with pytest.raises(ManifestError, match=r"no class 'BertModle'. Did you mean 'BertModel'\?"):
        build("BertModle", {})
    with pytest.raises(ManifestError, match=r"BertTokenizer is no model class"):
        build("BertTokenizer", {})
    with pytest.raises(ManifestError, match=r"model.arguments.hidden_sise .* Did you mean 'hidden_size'\?"):
        build("BertModel", {"hidden_sise": 32})


def test_attention_is_eager_or_fused_as_the_configuration_says():
    for kind, built_kind in (("eager", "eager"), ("sdpa", "sdpa")):
        arguments = {**BERT, "attn_implementation": kind}
        model = source.model(task(Model("m", "1", "huggingface", "BertModel", arguments, (IDS,))))
        assert model.config._attn_implementation == built_kind


def save(tmp_path, state, **changes):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    one = linear()
    model = dataclasses.replace(one.model, weights=str(path), weights_sha256=file_digest(path), **changes)
    return dataclasses.replace(one, model=model), path


def test_weights_are_those_of_the_file(tmp_path):
    state = nn.Linear(8, 4).state_dict()
    one, _ = save(tmp_path, state)
    assert torch.equal(program.build(one).model.weight, state["weight"])


def test_weights_that_do_not_fit_are_named(tmp_path):
    good = nn.Linear(8, 4).state_dict()
    with pytest.raises(ManifestError, match="lacks bias"):
        program.build(save(tmp_path, {"weight": good["weight"]})[0])
    with pytest.raises(ManifestError, match="has unknown scale"):
        program.build(save(tmp_path, {**good, "scale": torch.ones(1)})[0])
    with pytest.raises(ManifestError, match=r"weight has shape \(4, 9\); the model wants \(4, 8\)"):
        program.build(save(tmp_path, {**good, "weight": torch.ones(4, 9)})[0])
    with pytest.raises(ManifestError, match="lacks bias"):  # without reading the values
        program.build_fake(save(tmp_path, {"weight": good["weight"]})[0])


def test_other_weights_than_those_locked_are_damage(tmp_path):
    one, path = save(tmp_path, nn.Linear(8, 4).state_dict())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedData, match="not the file that was locked"):
        program.build(one)
    path.write_bytes(data[:40])
    with pytest.raises(DamagedData, match="no readable safetensors file"):
        program.build(one)
    path.unlink()
    with pytest.raises(ManifestError, match="there is no file"):
        program.build(one)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NotRunnable, match=r"pip install 'gnomon\[models\]'"):
        program.build(family("BERT"))


def test_a_fake_copy_keeps_indices_and_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.register_buffer("edges", torch.tensor([2, 0, 1]))

    from torch._subclasses import FakeTensor, FakeTensorMode

    model = Tied()
    copy = source.fake_copy(model, FakeTensorMode())
    assert isinstance(copy.a.weight, FakeTensor)
    assert copy.a.weight is copy.b.weight
    assert copy.edges.tolist() == [2, 0, 1]
    assert copy.edges is not model.edges
    assert not isinstance(model.a.weight, FakeTensor)
