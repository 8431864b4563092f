import dataclasses
import re
import subprocess
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from gnomon.core.errors import DamagedData
from gnomon.store import kinds
from tests.store.build import python


def leaf(kind: Any, path: list[str]) -> Any:
    """The type of the field at `path` below the type `kind`."""
    if get_origin(kind) is Annotated:
        return leaf(get_args(kind)[0], path)
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = [a for a in get_args(kind) if a is not type(None)]
        return leaf(kind, path)
    if not path:
        return kind
    if get_origin(kind) is Mapping:
        return leaf(get_args(kind)[1], path[1:])
    assert dataclasses.is_dataclass(kind), f"{kind} has no field {path[0]}"
    return leaf(get_type_hints(kind)[path[0]], path[1:])


@pytest.mark.parametrize("kind", kinds.RECORDS.names())
def test_every_kind_is_read_by_the_class_of_that_name(kind):
    assert kinds.RECORDS.get(kind).__record__[0] == kind


def test_every_record_that_the_code_defines_can_be_read_back():
    source = Path(kinds.__file__).parents[1]
    found = {kind for path in source.rglob("*.py") for kind in re.findall(r'^@record\("(.+?)"', path.read_text(), re.M)}
    assert found == set(kinds.RECORDS)


def test_no_record_needs_torch_to_be_read():
    load = "from gnomon.store.kinds import RECORDS; [RECORDS.get(kind) for kind in RECORDS]"
    code = f"import sys; {load}; print('torch' in sys.modules)"
    assert subprocess.run(python(code), capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(("kind", "column"), [(kind, column) for kind in kinds.HOT for column in kinds.HOT[kind]])
def test_every_column_comes_from_a_field_that_there_is(kind, column):
    found = leaf(kinds.RECORDS.get(kind), kinds.HOT[kind][column].split("."))
    assert (
        found is float if column in kinds.NUMBERS else found is str or all(isinstance(a, str) for a in get_args(found))
    )


def test_a_value_that_is_missing_or_of_another_type_gives_no_column():
    document = {"schema": "gnomon/forecast/1", "task": 7, "device": None, "total": {"value_s": True}}
    assert set(kinds.hot(document).values()) == {None}
    assert set(kinds.hot({"schema": "gnomon/unheard-of/1", "task": "t"}).values()) == {None}


def test_a_whole_number_becomes_a_number_of_seconds():
    found = kinds.hot({"schema": "gnomon/forecast/1", "total": {"value_s": 2}})["latency_s"]
    assert (found, type(found)) == (2.0, float)


def test_a_kind_that_nobody_knows_cannot_be_read():
    with pytest.raises(DamagedData, match="no record is called 'unheard-of'"):
        kinds.read({"schema": "gnomon/unheard-of/1"})
