import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.core.digest import canonical_json, digest
from gnomon.core.errors import DamagedData
from gnomon.core.records import (
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    Problem,
    StructureError,
    from_json,
    json_schema,
    record,
    structure,
    to_json,
    type_name,
)
from gnomon.spec.task import Scenario, Stage
from gnomon.store.kinds import RECORDS

HUGE = 10**5000  # Python refuses to print it


@record("leaf", 1)
@dataclass(frozen=True, slots=True)
class Leaf:
    size: Annotated[float, POSITIVE]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Twig:
    pair: tuple[int, str]
    kind: Literal["long", "short", 3, True] = "long"


@record("tree", 2)
@dataclass(frozen=True, slots=True)
class Tree:
    name: Annotated[str, NOT_EMPTY]
    leaf: Leaf
    leaves: tuple[Leaf, ...] = ()
    twigs: Mapping[str, Twig] = field(default_factory=dict)
    age: Annotated[int, NOT_NEGATIVE] | None = None
    value: int | str | None = None
    from_: str = field(default="", metadata={"key": "from"})
    is_old: bool = False
    rings: Annotated[tuple[float, ...], NOT_EMPTY] = (1.0,)
    free: Any = None


TREE_SCHEMA = jsonschema.Draft202012Validator(json_schema(Tree))


def plain():
    """What JSON can hold and a record lets through."""
    numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(-1e300, 1e300)
    value = st.none() | st.booleans() | numbers | st.text(max_size=5)
    for _ in range(2):
        value = value | st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=5), value, max_size=3)
    return value


def accepted(cls, arguments):
    """An instance; where the class itself refuses the combination, the fields that have a default get it."""
    try:
        return cls(**arguments)
    except ValueError:
        missing = dataclasses.MISSING
        needed = [f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing]
        return cls(**{name: arguments[name] for name in needed})


# records whose fields allow each other only in few combinations
HELD_BY_RULES = {
    Stage: st.one_of(
        st.builds(Stage, target=st.just("package.module:name"), arguments=st.dictionaries(st.just("k"), plain())),
        st.builds(Stage, code=st.text(min_size=1, max_size=8)),
    ),
    Scenario: st.sampled_from(
        [
            Scenario("single-stream", percentile=0.5, max_queries=2**40),
            Scenario("multi-stream", samples_per_query=3, min_duration_s=0.1),
            Scenario("server", target_qps=1e-3, latency_bound_s=1 / 3, confidence=0.9),
            Scenario("offline", target_qps=7.0, max_duration_s=1e9),
            Scenario("training-steps", target_loss=-0.25, max_queries=300, seed=2**31),
        ]
    ),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type as records use it, built here from the type alone."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return plain()
    if origin is Annotated:
        patterns = [c.schema["pattern"] for c in args[1:] if "pattern" in c.schema]
        values = st.from_regex(patterns[0]) if patterns else values_of(args[0])
        return values.filter(lambda value: all(c.holds(value) for c in args[1:]))
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(a) for a in args])
    if origin is tuple:
        if args[-1] is ...:
            return st.lists(values_of(args[0]), max_size=2).map(tuple)
        return st.tuples(*map(values_of, args))
    if origin in (dict, Mapping):
        return st.dictionaries(st.text(max_size=4), values_of(args[1]), max_size=2)
    if kind in HELD_BY_RULES:
        return HELD_BY_RULES[kind]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        fields = {f.name: values_of(hints[f.name]) for f in dataclasses.fields(kind)}
        return st.fixed_dictionaries(fields).map(lambda given: accepted(kind, given))
    if kind is float:
        return st.floats(-1e300, 1e300)
    return {str: st.text(max_size=8), int: st.integers(-(2**63) + 1, 2**63 - 1), bool: st.booleans(),
            type(None): st.none()}[kind]  # fmt: skip


@pytest.mark.parametrize("cls", [Tree, *(RECORDS.get(kind) for kind in RECORDS.names())])
@settings(max_examples=5)
@given(data=st.data())
def test_every_record_comes_back_from_json_equal_and_with_its_digest(cls, data):
    value = data.draw(values_of(cls))
    document = to_json(value)
    again = from_json(document)
    assert again == value
    assert type(again) is type(value)
    assert digest(to_json(again)) == digest(document)


@given(value=values_of(Tree))
def test_what_structure_takes_the_json_schema_takes(value):
    document = to_json(value)
    assert structure(Tree, document) == value
    TREE_SCHEMA.validate(document)


def places(document, path=()):
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def changed(document, path, value):
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = changed(document[path[0]], path[1:], value)
    return copy


def whole_floats_aside(document):
    """Whether the one difference is absent: JSON Schema takes 2.0 for a whole number."""
    if isinstance(document, float):
        return not document.is_integer()
    items = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return all(map(whole_floats_aside, items))


@settings(max_examples=100)
@given(data=st.data())
def test_structure_and_the_json_schema_agree_on_documents_with_something_wrong(data):
    document = to_json(data.draw(values_of(Tree)))
    path = data.draw(st.sampled_from(list(places(document))))
    wrong = data.draw(plain().filter(whole_floats_aside) | st.sampled_from([2**63, -1, 0, "", [], {}, 2e300]))
    document = changed(document, path, wrong)
    try:
        structure(Tree, document)
        taken = True
    except StructureError:
        taken = False
    assert taken == TREE_SCHEMA.is_valid(document)


@pytest.mark.parametrize("cls", [Tree, *(RECORDS.get(kind) for kind in RECORDS.names())])
def test_every_json_schema_is_one(cls):
    jsonschema.Draft202012Validator.check_schema(json_schema(cls))


@pytest.mark.parametrize("empty", [{"name": ""}, {"rings": []}, {"notes": {}}])
def test_what_must_not_be_empty_must_not_be_empty_in_the_json_schema_either(empty):
    fields = [
        ("name", Annotated[str, NOT_EMPTY], "a"),
        ("rings", Annotated[tuple[int, ...], NOT_EMPTY], (1,)),
        ("notes", Annotated[Mapping[str, int], NOT_EMPTY], None),
    ]
    kind = dataclasses.make_dataclass("Kind", fields, frozen=True)
    assert jsonschema.Draft202012Validator(json_schema(kind)).is_valid({"name": "a", "rings": [1], "notes": {"a": 1}})
    assert not jsonschema.Draft202012Validator(json_schema(kind)).is_valid(empty)
    with pytest.raises(StructureError, match="wanted a value that is not empty"):
        structure(kind, empty)


def test_two_classes_of_one_name_stay_apart_in_the_json_schema():
    one = dataclasses.make_dataclass("Part", [("a", int)], frozen=True)
    other = dataclasses.make_dataclass("Part", [("b", str)], frozen=True)
    both = dataclasses.make_dataclass("Both", [("one", one), ("other", other)], frozen=True)
    validator = jsonschema.Draft202012Validator(json_schema(both))
    assert validator.is_valid({"one": {"a": 1}, "other": {"b": "x"}})
    assert not validator.is_valid({"one": {"b": "x"}, "other": {"a": 1}})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": ""}, "name: wanted a value that is not empty, got ''"),
        ({"name": 1.12}, "name: wanted text, got 1.12"),
        ({"leaf": {"size": -1}}, "leaf.size: wanted a positive number, got -1"),
        ({"leaf": {}}, "leaf.size: missing; wanted a positive number"),
        ({"leaf": None}, "leaf: wanted a table of keys and values, got None"),
        ({"leaf": {"size": 1, "schema": "gnomon/leaf/7"}}, "leaf.schema: wanted 'gnomon/leaf/1', got 'gnomon/leaf/7'"),
        ({"leaves": [{"size": 1}, {"size": 1, "note": 2}]}, "leaves[1].note: wanted text, got 2"),
        ({"leaves": "ab"}, "leaves: wanted a list of a table of keys and values, got 'ab'"),
        ({"twigs": {"t": {"pair": [1]}}}, "twigs.t.pair: wanted a list of 2 values, got [1]"),
        ({"twigs": {"t": {"pair": [1, "a"], "kind": "logn"}}}, "got 'logn'. Did you mean 'long'?"),
        ({"twigs": {"t": {"pair": [1, "a"], "kind": 1}}}, "wanted one of 'long', 'short', 3, True, got 1"),
        ({"twigs": {3: {}}}, "twigs: keys are text; got 3. Put it in quotes"),
        ({"age": True}, "age: wanted a whole number, got True"),
        ({"age": 2.0}, "age: wanted a whole number, got 2.0"),
        ({"value": 1.5}, "value: wanted a whole number or text or nothing, got 1.5"),
        ({"is_old": 1}, "is_old: wanted true or false, got 1"),
        ({"rings": [float("nan")]}, "rings[0]: wanted a number, got nan"),
        ({"rings": []}, "rings: wanted a value that is not empty, got []"),
        ({"from_": "x"}, "from_: unknown key. Did you mean 'from'? Known: name, leaf, leaves"),
        ({5: "x"}, "(top): keys are text; got 5. Put it in quotes"),
    ],
)
def test_a_problem_is_told_with_its_place_and_what_was_wanted(change, problem):
    with pytest.raises(StructureError) as caught:
        structure(Tree, {"name": "oak", "leaf": {"size": 1}} | change)
    assert len(caught.value.problems) == 1
    assert problem in str(caught.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(StructureError) as caught:
        structure(Tree, {"nmae": "oak", "leaf": {"size": 0}, "is_old": "no"})
    assert [problem.where for problem in caught.value.problems] == ["nmae", "name", "leaf.size", "is_old"]


def bomb(levels):
    value: Any = ["x"] * 9
    for _ in range(levels):
        value = [value] * 9
    return value


def nest(levels):
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("field_name", ["name", "leaf", "leaves", "twigs", "age", "value", "is_old"])
@pytest.mark.parametrize(
    "wrong", [HUGE, [HUGE], {"a": HUGE}, {HUGE: "a"}, {"a": bomb(40)}, nest(100_000), "x" * 10**7, {"k" * 10**6: 1}],
    ids=["huge number", "in a list", "in a table", "as a key", "bomb", "nest", "endless text", "endless key"],
)  # fmt: skip
def test_a_wrong_value_of_any_size_makes_a_short_message(field_name, wrong):
    if field_name == "value" and isinstance(wrong, str):
        wrong = [wrong]  # text is what this field takes
    try:
        structure(Tree, {"name": "oak", "leaf": {"size": 1}} | {field_name: wrong})
    except StructureError as error:
        assert len(str(error)) < 600  # noqa: PT017
    else:
        assert field_name == "name"  # a long name is no mistake
        assert wrong == "x" * 10**7


def test_a_literal_of_any_size_makes_a_short_message():
    for wrong in (HUGE, bomb(40), "x" * 10**7):
        with pytest.raises(StructureError) as caught:
            structure(Literal["a", "b"], wrong)
        assert len(str(caught.value)) < 150


def test_the_place_of_a_problem_reads_as_in_code():
    assert Problem(("spec", "inputs", 0, "dtype"), "").where == "spec.inputs[0].dtype"
    assert Problem((2, "a"), "").where == "[2].a"
    assert Problem((), "").where == "(top)"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, "cannot hold nan; use None"),
        (-float("inf"), ValueError, "cannot hold -inf; use None"),
        (2**63, ValueError, "cannot hold 9223372036854775808; the largest whole number"),
        pytest.param(HUGE, ValueError, "cannot hold a number of thousands of digits", id="huge"),
        (1.5e300, ValueError, r"cannot hold 1\.5e\+300; the largest number is 1e\+300"),
        ({1: "a", "1": "b"}, ValueError, "keys that are equal as text"),
        ({1, 2}, TypeError, "cannot hold a set"),
        (b"x", TypeError, "cannot hold a bytes"),
        (Leaf, TypeError, "cannot hold a type"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(value, error, message):
    with pytest.raises(error, match=message):
        to_json(Tree("oak", Leaf(1.0), free=[value]))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "this is no record: wanted a key 'schema'"),
        ({"schema": 1}, "this is no record: .* got 1"),
        ({"schema": "tree"}, "this is no record: .* got 'tree'"),
        ({"schema": "gnomon/tere/2"}, "no record is called 'tere'. Did you mean 'tree'"),
        (
            {"schema": "gnomon/tree/1"},
            "wanted a record 'gnomon/tree/2', the version that this Gnomon reads, got 'gnomon/tree/1'",
        ),
        ({"schema": "gnomon/leaf/1"}, "damaged record gnomon/leaf/1: size: missing"),
    ],
)
def test_a_document_that_is_no_record_of_this_version_is_damaged(document, message):
    with pytest.raises(DamagedData, match=message):
        from_json(document)


def test_a_record_of_another_kind_than_asked_for_is_refused():
    with pytest.raises(DamagedData, match="wanted a record 'gnomon/leaf/1', got 'gnomon/tree/2'"):
        from_json(to_json(Tree("oak", Leaf(1.0))), Leaf)


def test_what_a_class_itself_refuses_is_a_problem_at_its_place():
    @dataclass(frozen=True)
    class Range:
        low: float
        high: float

        def __post_init__(self):
            if self.low >= self.high:
                raise ValueError(f"wanted low below high, got {self.low:g} and {self.high:g}")

    with pytest.raises(StructureError, match="wanted low below high, got 2 and 1") as caught:
        structure(tuple[Range, ...], [{"low": 0, "high": 1}, {"low": 2, "high": 1}])
    assert [problem.where for problem in caught.value.problems] == ["[1]"]


def test_only_dataclasses_are_records():
    with pytest.raises(TypeError, match="Stone is no dataclass"):

        @record("stone", 1)
        class Stone:
            pass


def test_types_are_named_in_words():
    assert type_name(tuple[Annotated[float, POSITIVE], ...]) == "a list of a positive number"
    assert type_name(Mapping[str, int] | None) == "a table of keys and values or nothing"
    assert type_name(Annotated[int, "no constraint"]) == "a whole number"


def test_json_keeps_the_order_of_the_fields_and_the_schema_first():
    assert list(to_json(Leaf(1.0))) == ["schema", "size", "note"]
    assert canonical_json(to_json(Leaf(1.0))) == '{"note":"","schema":"gnomon/leaf/1","size":1}'
