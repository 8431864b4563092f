import hashlib
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.digest import canonical_json, digest, file_digest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(), s, max_size=4))


def unique_in_normal_form(value):
    if isinstance(value, dict):
        keys = {unicodedata.normalize("NFC", key) for key in value}
        return len(keys) == len(value) and all(map(unique_in_normal_form, value.values()))
    return all(map(unique_in_normal_form, value)) if isinstance(value, list) else True


VALUES = VALUES.filter(unique_in_normal_form)


def normal(value):
    """What should come back: text in normal form."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {normal(key): normal(item) for key, item in value.items()}
    return [normal(item) for item in value] if isinstance(value, list) else value


def shuffled(value, random):
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


@given(value=VALUES)
def test_canonical_json_is_json_of_the_same_value(value):
    assert json.loads(canonical_json(value)) == normal(value)


@given(value=VALUES)
def test_reading_and_writing_again_changes_nothing(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(value=VALUES, random=st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value, random):
    assert digest(shuffled(value, random)) == digest(value)


@given(value=VALUES)
def test_a_tuple_is_a_list(value):
    assert digest((value, 1)) == digest([value, 1])


@given(text=st.text())
def test_the_way_an_accent_is_typed_does_not_matter(text):
    assert digest(unicodedata.normalize("NFD", text)) == digest(unicodedata.normalize("NFC", text))


@given(number=st.integers(-(2**53), 2**53) | st.integers(0, 62).map(lambda n: 2**n) | st.just(10**16))
def test_a_whole_number_is_the_same_with_and_without_a_point(number):
    assert digest(float(number)) == digest(number)
    assert digest(number) != digest(number + 1)


@given(one=VALUES, other=VALUES)
def test_values_that_differ_have_digests_that_differ(one, other):
    assert (digest(one) == digest(other)) == (canonical_json(one) == canonical_json(other))
    assert digest([one]) != digest([one, one])
    assert digest({"a": one}) != digest({"b": one})


def test_kinds_of_nothing_are_told_apart():
    assert len({digest(value) for value in (None, 0, False, "", [], {}, "0", [0], [None])}) == 9


def test_the_digest_is_the_sha_256_of_the_text():
    assert canonical_json({"b": (1.0, 0.1, True, None), "a": "é"}) == '{"a":"é","b":[1,0.1,true,null]}'
    assert digest({}) == "sha256:" + hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, "no nan"),
        ([float("inf")], ValueError, "no inf"),
        ({1: 2}, TypeError, r"wants string keys; got \[1\]"),
        ({"\u00e9": 1, "e\u0301": 2}, ValueError, "equal after Unicode normalisation"),
        ({1, 2}, TypeError, "cannot hold a set"),
        ("caf\udce9", ValueError, "no Unicode, such as '.*udce9"),
        ({"\udce9": 1}, ValueError, "no Unicode"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        digest(value)


def test_endless_nesting_is_refused():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested so deeply"):
        digest(value)


@given(data=st.binary(max_size=100))
def test_a_file_has_the_digest_of_its_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(data)
    assert file_digest(path) == "sha256:" + hashlib.sha256(data).hexdigest()
