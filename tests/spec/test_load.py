import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gnomon.core.errors import ManifestError, UnknownVersion
from gnomon.spec.load import DEEPEST, LARGEST_FILE, SCREEN, load, parse, show
from tests.spec.write import task, write

HERE = Path("here.yaml")
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(-1e300, 1e300)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=8).filter(
        str.isascii
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=15,
)


def text_of(document):
    return parse(HERE, document.encode()).document


@given(PLAIN.filter(lambda value: value is not None))
def test_json_reads_as_itself(value):
    assert text_of(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: yes\nb: no\nc: on\nd: off",
        "a: 0777\nb: 0o17\nc: 0x1F",
        "a: 1e3\nb: 1.\nc: .5\nd: +12",
        "a: 2020-01-01",
        "a: ~\nb:\nc: null\nd: Null",
        "a: 'it''s'\nb: \"\\u00e9\\n\"",
        "a: |\n  two\n  lines\nb: >\n  one\n  line",
        "a: &x [1, {b: 2}]\nc: *x",
        "? a\n: b",
        "a: 12:30:45",
        "a: TRUE\nb: tRUE",
        "{a: [1, 2], b: {c: d}}",
        "a: !!str 1\nb: !!int '2'",
    ],
)
def test_yaml_reads_as_another_yaml_1_2_reader_does(text):
    theirs = YAML(typ="safe", pure=True).load(text)
    dates_as_text = {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in theirs.items()}
    assert text_of(text) == dates_as_text


def test_what_only_yaml_1_1_calls_numbers_and_booleans_is_text():
    assert text_of("a: 1_000\nb: yes\nc: 1:30\nd: 0b11") == {"a": "1_000", "b": "yes", "c": "1:30", "d": "0b11"}


def test_every_key_keeps_its_line():
    loaded = parse(HERE, b"a: 1\nb:\n  c:\n    - x\n    - d: 2\n")
    assert [loaded.line(p) for p in ((), ("a",), ("b", "c"), ("b", "c", 0), ("b", "c", 1, "d"))] == [1, 1, 3, 4, 5]
    assert loaded.line(("b", "c", 1, "absent")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "here.yaml: the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"a: 1\n---\nb: 2\n", "here.yaml:2: wanted one document, got a second one"),
        (b"a: \xff", "here.yaml:1: wanted UTF-8 text, got the byte 0xff"),
        (b"a:\n\t- b", "here.yaml:2: this is not YAML.*Indent with spaces"),
        (b"a: [1", "here.yaml:1: this is not YAML"),
        (b"x: 1\nspec: {a: 1, b: 2, a: 3}", "here.yaml:2: spec.a: the key is given twice, first on line 2"),
        ("caf\u00e9: 1\ncafe\u0301: 2".encode(), "the key is given twice, first on line 1"),
        (b"a: !!python/object/apply:os.system [x]", "here.yaml:1: the tag .*os.system' is refused"),
        (b"a: !include x.yaml", "the tag '!include' is refused"),
        (b"a: {b: .nan}", "here.yaml:1: a.b: .nan is no number that a manifest can hold"),
        (b"a: -.inf", "a: -.inf is no number"),
        (b"a: 1e999", "a: 1e999 is too large; numbers go up to 1e300"),
        (b"a: 9223372036854775808", "9223372036854775808 is too large"),
        (b"a: " + b"9" * 6000, "a number of 6000 digits"),
        (b"a: *x", "the alias '\\*x' has no anchor"),
        (b"a: &x [*x]", "the alias '\\*x' has no anchor"),
        (b"? [a]\n: b", "a key is text, got a list"),
        (b"%YAML one\n---\na: 1", "this is not YAML"),
        (b"a: \x00", "this is not YAML"),
        (b"[" * 20_000, f"nested deeper than {DEEPEST} levels"),
        (b"a: &a [x, x]\n" + b"b: &b [*a, *a]\n" * 1 + b"c: [" + b"*b, " * 20_000 + b"]", "more than 50,000 values"),
    ],
)
def test_what_is_no_manifest_text_is_refused_with_its_line(text, message):
    with pytest.raises(ManifestError, match=message):
        parse(HERE, text)


def test_a_billion_laughs_cost_nothing():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(ManifestError, match="more than 50,000 values once its aliases are expanded"):
        text_of("\n".join(lines))


def test_depth_counts_through_aliases():
    text = "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]" for i in range(2 * DEEPEST))
    with pytest.raises(ManifestError, match="nested deeper"):
        text_of(text)


def test_the_nearest_file_is_offered(tmp_path):
    write(tmp_path, "task.yaml", task())
    with pytest.raises(ManifestError, match=r"no such file. Did you mean '.*task.yaml'"):
        load(tmp_path / "taks.yaml")


def test_a_folder_and_a_large_file_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="is a folder; wanted a manifest file in it"):
        load(tmp_path)
    with pytest.raises(ManifestError, match="is larger than 256 KiB"):
        load(write(tmp_path, "large.yaml", "#" * (LARGEST_FILE + 1)))


def test_all_problems_come_in_one_error_that_fits_a_screen(tmp_path):
    document = task(threads=0, dtype="flaot32", mode="infer", modle=1)
    with pytest.raises(ManifestError) as caught:
        load(write(tmp_path, "task.yaml", document)).manifest()
    text = str(caught.value)
    assert (
        "spec.dtype: wanted one of 'float64', 'float32', 'float16', 'bfloat16', got 'flaot32'. Did you mean 'float32'?"
        in text
    )
    assert all(key in text for key in ("spec.threads", "spec.mode", "spec.modle"))
    document["spec"] |= {f"k{i}": 1 for i in range(100)}
    with pytest.raises(ManifestError) as caught:
        load(write(tmp_path, "task.yaml", document)).manifest()
    lines = str(caught.value).splitlines()
    assert len(lines) == SCREEN + 1
    assert lines[-1] == "... and 84 more"


def test_a_long_problem_is_cut_and_line_breaks_do_not_multiply_it():
    assert show(["a\nb\nc"]) == "a b c"
    assert len(show(["x" * 10_000])) == 960
    assert {len(line) for line in show(["x" * 10_000] * 5).splitlines()} == {240}


def test_a_version_without_quotes_says_how_to_write_it(tmp_path):
    document = task()
    document["metadata"]["version"] = 1.12
    with pytest.raises(ManifestError, match=r"metadata.version: wanted text, got 1.12. Put it in quotes"):
        load(write(tmp_path, "task.yaml", document)).manifest()


@pytest.mark.parametrize("version", ["gnomon/v2", "gnomon/v99"])
def test_a_manifest_of_a_later_format_says_which_is_read_and_to_upgrade(tmp_path, version):
    path = write(tmp_path, "task.yaml", {**task(), "apiVersion": version, "new": "keys are not looked at"})
    with pytest.raises(UnknownVersion) as caught:
        load(path).manifest()
    assert f"task.yaml:2: apiVersion: this manifest is written in {version}; this Gnomon" in str(caught.value)
    assert "reads gnomon/v1. Upgrade Gnomon" in str(caught.value)
    assert (caught.value.exit_code, caught.value.outcome) == (2, "unknown-version")


def test_what_is_no_version_of_ours_is_a_wrong_value(tmp_path):
    with pytest.raises(ManifestError, match="apiVersion: wanted 'gnomon/v1', got 'v1'"):
        load(write(tmp_path, "task.yaml", {**task(), "apiVersion": "v1"})).manifest()


def test_two_escapes_of_json_are_one_character_and_half_a_one_is_refused():
    assert text_of(r'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}
    with pytest.raises(ManifestError, match=r"here.yaml:2: a: half of a character"):
        text_of('\na: "\\ud83d"')
