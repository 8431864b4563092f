from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.spec.find import manifest_files
from gnomon.spec.load import load, parse
from gnomon.spec.write import scalar, yaml_text

HERE = Path("here.yaml")
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=10).filter(
    lambda text: __import__("unicodedata").is_normalized("NFC", text)
)
_WORDS = st.sampled_from(
    ["no", "null", "1.0", "0x1", "1e3", ".inf", "a: b", "a #b", "- a", "", "~", "x:", "https://a/b"]
)
_SCALAR = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | _TEXT | _WORDS
_DOCUMENT = st.dictionaries(
    _TEXT | _WORDS,
    st.recursive(
        _SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT | _WORDS, inner, max_size=4)
    ),
    min_size=1,
    max_size=4,
)


@given(_DOCUMENT)
def test_a_document_reads_back_as_itself(document):
    again = parse(HERE, yaml_text(document).encode()).document
    assert again == document
    assert repr(again) == repr(document)  # 1 is no 1.0 and no True


@pytest.mark.parametrize("path", manifest_files()[:5], ids=lambda path: path.stem)
def test_shipped_manifests_read_back_as_themselves(path):
    document = load(path).document
    assert parse(HERE, yaml_text(document).encode()).document == document


def test_comments_stand_above_their_keys_and_change_nothing():
    document = {"a": {"b": [{"c": 1, "d": 2}]}, "e": "x"}
    comments = {("a", "b"): "two\nlines", ("a", "b", 0, "c"): "first", ("a", "b", 0, "d"): "second", ("e",): "last"}
    text = yaml_text(document, comments)
    assert text == ("a:\n  # two\n  # lines\n  b:\n    # first\n    - c: 1\n      # second\n      d: 2\n# last\ne: x\n")
    assert parse(HERE, text.encode()).document == document


def test_plain_text_stays_plain():
    assert [scalar(text) for text in ("float32", "gnomon.zoo:build", "./a.yaml", "1.0", "no")] == [
        "float32", "gnomon.zoo:build", '"./a.yaml"', '"1.0"', '"no"',
    ]  # fmt: skip
