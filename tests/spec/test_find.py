from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gnomon.core.errors import ManifestError, UnknownName
from gnomon.spec.find import find, inside, manifest_files, registered_folders, task_names, version_satisfies
from gnomon.spec.load import load
from tests.spec.write import manifest, task, write

VERSIONS = st.builds(lambda *n: ".".join(map(str, n)), *[st.integers(0, 3)] * 3)


def test_the_shipped_tasks_are_found():
    assert {"sentence-embedding", "gpt2-generation-step", "resnet50-classification", "gcn-node-classification"} <= set(
        task_names()
    )


@pytest.mark.parametrize(
    ("constraint", "inside_range", "outside"),
    [
        ("^1.2", ["1.2", "1.2.1", "1.9.9"], ["1.1.9", "2.0", "2.0rc1", "0.9", "1.3rc1"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.2.2", "0.3.0", "1.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4", "0.1", "0.0.2"]),
        ("~1.2", ["1.2.0", "1.2.9"], ["1.3", "1.1", "2.0"]),
        ("~1", ["1.0", "1.9"], ["2.0", "0.9"]),
        (">=1,<2", ["1", "1.9.9"], ["2", "0.9", "1.5rc1"]),
        ("1.2", ["1.2", "1.2.0"], ["1.2.1"]),
        ("!=1.5,>1", ["1.4", "2"], ["1.5", "1"]),
        ("*", ["0.1", "9"], ["1.0rc1"]),
        ("", ["0.1"], ["1.0a1"]),
        ("^1.0rc1", ["1.0rc1", "1.0rc2", "1.0", "1.5"], ["1.0b1", "2.0rc1"]),
    ],
)
def test_ranges_mean_what_semantic_versioning_says(constraint, inside_range, outside):
    assert [v for v in inside_range + outside if version_satisfies(v, constraint)] == inside_range


@given(VERSIONS, VERSIONS)
def test_caret_and_tilde_agree_with_the_ranges_they_stand_for(version, base):
    major, minor, patch = map(int, base.split("."))
    upper = f"{major + 1}" if major else f"0.{minor + 1}" if minor else f"0.0.{patch + 1}"
    assert version_satisfies(version, f"^{base}") == SpecifierSet(f">={base},<{upper}").contains(version)
    assert version_satisfies(version, f"~{base}") == SpecifierSet(f"~={base}").contains(version)


@given(st.lists(VERSIONS, min_size=1, unique_by=Version), st.randoms(use_true_random=False))
def test_the_highest_version_wins_whatever_the_order_of_the_files(tmp_path_factory, versions, shuffler):
    folder = tmp_path_factory.mktemp("versions")
    names = [f"{i}.yaml" for i in range(len(versions))]
    shuffler.shuffle(names)
    for name, version in zip(names, versions, strict=True):
        write(folder, name, manifest("Software", "stack", version, python=f">={version}"))
    assert find("Software", "stack@>=0", folder).manifest.metadata.version == max(versions, key=Version)


def test_what_cannot_be_chosen_is_an_error_of_its_own(tmp_path):
    write(tmp_path, "a.yaml", manifest("Software", "stack", "1.0", python=">=3.11"))
    write(tmp_path, "b.yaml", manifest("Software", "stack", "1.5", python=">=3.11"))
    with pytest.raises(UnknownName, match=r"no software is called 'stick'. Did you mean 'stack'\? Known: stack"):
        find("Software", "stick", tmp_path)
    with pytest.raises(ManifestError, match=r"no version of software 'stack' satisfies '\^2'; there are: 1.0, 1.5"):
        find("Software", "stack@^2", tmp_path)
    with pytest.raises(ManifestError, match=r"wanted a Hardware called 'stack'; there is a Software in .*a.yaml"):
        find("Hardware", "stack", tmp_path)
    write(tmp_path, "c.yaml", manifest("Software", "stack", "1.5.0", python=">=3.12"))
    with pytest.raises(ManifestError, match=r"software stack@1.5.* is ambiguous: .*b.yaml and .*c.yaml differ"):
        find("Software", "stack", tmp_path)
    assert find("Software", "stack@<1.5", tmp_path).path.name == "a.yaml"


def test_a_digest_pins_one_of_two_that_are_ambiguous(tmp_path):
    write(tmp_path, "b.yaml", manifest("Software", "stack", "1.5", python=">=3.11"))
    write(tmp_path, "c.yaml", manifest("Software", "stack", "1.5", python=">=3.12"))
    for name in ("b.yaml", "c.yaml"):
        digest = load(tmp_path / name).manifest().digest
        assert find("Software", f"stack@{digest}", tmp_path).path.name == name


def test_equal_copies_are_not_ambiguous(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path, name, manifest("Software", "stack", "1.0", python=">=3.11"))
    assert find("Software", "stack", tmp_path).manifest.metadata.version == "1.0"


def test_a_broken_neighbour_is_skipped_and_named_only_when_it_matters(tmp_path):
    write(tmp_path, "good.yaml", manifest("Software", "stack", "1.0"))
    write(
        tmp_path,
        "broken.yaml",
        "apiVersion: gnomon/v1\nkind: Software\nmetadata: {name: other, version: 1}\nspec: {}\n",
    )
    write(tmp_path, "compose.yaml", "services: {a: !include x}\n")  # of another program
    assert find("Software", "stack", tmp_path).path.name == "good.yaml"
    with pytest.raises(UnknownName, match=r"no software is called 'other'.*Skipped: .*broken.yaml:3: metadata.version"):
        find("Software", "other", tmp_path)


def test_packages_register_manifests_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "their_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    write(package, "theirs.yaml", task("their-task"))
    info = tmp_path / "their_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gnomon.manifests]\ntheirs = their_tasks\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert metadata.version("their-tasks") == "1.0"
    assert package in registered_folders()
    assert "their-task" in task_names()


def test_search_folders_count(tmp_path):
    write(tmp_path, "mine.yaml", task("mine"))
    assert "mine" in task_names([tmp_path])
    assert "mine" not in task_names()
    assert tmp_path / "mine.yaml" in manifest_files(None, [tmp_path])


@pytest.mark.parametrize(
    ("relative", "message"),
    [
        ("../x", "may not leave the manifest's folder"),
        ("a/../../x", "may not leave"),
        ("/etc/passwd", "may not leave"),
        ("C:\\x", "may not leave"),
        ("..\\x", "may not leave"),
        ("link", "leaves the manifest's folder through a symbolic link"),
        ("linked/x", "through a symbolic link"),
        ("folder", "is a folder; wanted a file"),
        ("prat.yaml", r"there is no file 'prat.yaml' in .*Did you mean 'part.yaml'"),
        ("a\0b", "NUL"),
    ],
)
def test_paths_stay_inside_the_folder(tmp_path, relative, message):
    folder = tmp_path / "in"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "x").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "x")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "part.yaml").write_text("")
    with pytest.raises(ManifestError, match=message):
        inside(folder, relative)


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "link"]), min_size=1, max_size=6).map("/".join))
def test_no_path_reaches_out(tmp_path_factory, relative):
    folder = tmp_path_factory.mktemp("in")
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "link").symlink_to("../..")
    (folder / "a" / "b" / "a").write_text("")
    try:
        found = inside(folder, relative)
    except ManifestError:
        return
    assert found.resolve().is_relative_to(folder.resolve())
