import subprocess
import sys

import pytest

from gnomon.core.errors import ManifestError
from gnomon.spec.code import locate, top_level_names

LOUD = "raise RuntimeError('this module was run')\n\n\ndef build():\n    pass\n"


@pytest.fixture
def folder(tmp_path):
    """Code beside a manifest that shouts when it is run."""
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(LOUD)
    (tmp_path / "package" / "inner.py").write_text(LOUD)
    return tmp_path


def test_installed_and_own_code_is_found(tmp_path):
    assert locate("gnomon.zoo.graph.gcn:build", tmp_path) == "part of gnomon"
    assert locate("packaging.version:Version", tmp_path).startswith("installed with packaging ")


def test_locating_imports_nothing():
    code = (
        "import sys, pathlib; from gnomon.spec.code import locate;"
        "[locate(x, pathlib.Path()) for x in ('gnomon.zoo.graph.gcn:build', 'scipy.stats._qmc:Sobol')];"
        "print([m for m in ('torch', 'scipy', 'gnomon.zoo') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("target", ["loud:build", "package.inner:build"])
def test_code_beside_the_manifest_wants_trust_and_is_not_run(folder, target):
    with pytest.raises(ManifestError, match="of no installed package; it runs only with --trust"):
        locate(target, folder)
    assert locate(target, folder, trust=True) == f"trusted, in {folder}"


def test_code_on_the_path_that_no_distribution_owns_is_refused(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ManifestError, match="it runs only with --trust"):
        locate("loud:build", folder)
    with pytest.raises(ManifestError, match="belongs to no installed package"):
        locate("loud:build", folder / "package", trust=True)


def test_a_local_folder_cannot_pass_for_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging" / "__init__.py").write_text("")
    (tmp_path / "packaging" / "evil.py").write_text(LOUD)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ManifestError, match="runs only with --trust"):
        locate("packaging.evil:build", tmp_path)


@pytest.mark.parametrize("target", ["os:system", "subprocess:run", "builtins:eval", "sys:exit"])
@pytest.mark.parametrize("trust", [False, True])
def test_the_standard_library_is_no_model(tmp_path, target, trust):
    with pytest.raises(ManifestError):
        locate(target, tmp_path, trust)


def test_missing_modules_and_callables_are_told_apart(tmp_path):
    with pytest.raises(ManifestError, match=r"no module 'no_such_module.x' is installed"):
        locate("no_such_module.x:build", tmp_path)
    with pytest.raises(ManifestError, match=r"'gnomon.zoo.graph.gcn' has no callable 'biuld'. Did you mean 'build'\?"):
        locate("gnomon.zoo.graph.gcn:biuld", tmp_path)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (
            "import a.b\nfrom c import d as e\nx: int = 1\ny, (z, *w) = v\nclass K: q = 1\ndef f(): r = 1",
            {"a", "e", "x", "y", "z", "w", "K", "f"},
        ),
        (
            "try:\n    import a\nexcept ImportError:\n    b = 1\nelse:\n    c = 1\nfinally:\n    d = 1",
            {"a", "b", "c", "d"},
        ),
        ("if x:\n    def f(): pass\nelse:\n    from g import h", {"f", "h"}),
        ("from a import *", None),
        ("def __getattr__(name): ...", None),
        ("def (", None),
    ],
)
def test_names_of_a_module_are_read_from_its_source(tmp_path, source, names):
    path = tmp_path / "module.py"
    path.write_text(source)
    assert top_level_names(path) == names
