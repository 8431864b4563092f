import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gnomon.spec.imports.constraint import specifier


def as_masterminds_does(constraint, version):
    """Does a version satisfy one clause, by the rules of Masterminds/semver written out."""
    operator = constraint.rstrip("0123456789.")
    numbers = [int(n) for n in constraint[len(operator) :].split(".")]
    floor = tuple(numbers + [0] * (3 - len(numbers)))
    if operator in ("", "="):
        return list(version[: len(numbers)]) == numbers
    if operator == "~":
        return version >= floor and list(version[: min(len(numbers), 2)]) == numbers[:2]
    if operator == "^":
        keep = next((i + 1 for i, n in enumerate(numbers) if n), len(numbers))
        return version >= floor and list(version[:keep]) == numbers[:keep]
    return {">=": version >= floor, "<=": version <= floor, ">": version > floor, "<": version < floor}[operator]


@given(
    st.sampled_from(["", "=", "~", "^", ">=", "<=", ">", "<"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_a_specifier_holds_for_the_versions_that_the_constraint_holds_for(operator, numbers, version):
    constraint = operator + ".".join(map(str, numbers))
    found = specifier(constraint)
    holds = SpecifierSet(found).contains(Version(".".join(map(str, version))))
    assert holds == as_masterminds_does(constraint, version), (constraint, found)


@pytest.mark.parametrize(
    ("constraint", "wanted"),
    [
        ("1.6.0", "==1.6.0"), ("1.12", "==1.12.*"), ("1.x", "==1.*"), ("*", ""), ("latest", ""),
        (">=1.0, <2.0", ">=1.0,<2.0"), (">= 1.0 < 2", ">=1.0,<2"), ("1.0 - 2.0", ">=1.0,<=2.0"), ("v1.2.3", "==1.2.3"),
        ("1.0 || 2.0", None), ("newest", None), ("1.2.3-beta", None), ("-1", None),
    ],
)  # fmt: skip
def test_constraints_and_their_specifiers(constraint, wanted):
    assert specifier(constraint) == wanted
