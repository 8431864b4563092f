import errno
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core import errors
from gnomon.core.errors import OUTCOMES, GnomonError, did_you_mean, outcome_of

TREE = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, GnomonError)]


@pytest.mark.parametrize(
    ("name", "code"),
    [("GnomonError", 1), ("CheckFailed", 1), ("UsageError", 2), ("ManifestError", 2), ("UnknownName", 2),
     ("NotRunnable", 3), ("DamagedData", 4)],
)  # fmt: skip
def test_an_error_ends_the_command_with_its_code(name, code):
    assert getattr(errors, name).exit_code == code


def test_every_error_of_the_tree_has_a_code_that_the_help_explains():
    assert {one.exit_code for one in TREE} == {1, 2, 3, 4}


def test_every_class_has_an_outcome_of_the_closed_list_and_an_error_can_name_a_better_one():
    assert {one.outcome for one in TREE} <= set(OUTCOMES)
    error = errors.CheckFailed("the clock", outcome="clock-backwards")
    assert (str(error), error.outcome, errors.CheckFailed("other").outcome) == (
        "the clock",
        "clock-backwards",
        "check-failed",
    )
    assert pickle.loads(pickle.dumps(error)).outcome == "clock-backwards"
    with pytest.raises(ValueError, match=r"no outcome is called 'clock-backward'\. Did you mean 'clock-backwards'\?"):
        errors.CheckFailed("the clock", outcome="clock-backward")


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "out-of-memory"),
        (OutOfMemoryError("CUDA"), "out-of-memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (OSError(errno.EACCES, "Permission denied"), "error"),
        (ZeroDivisionError(), "error"),
        (errors.UnknownName("x"), "bad-input"),
    ],
)
def test_what_ended_a_run_names_its_outcome(error, outcome):
    assert outcome_of(error) == outcome


@pytest.mark.parametrize(
    ("name", "known", "offer"),
    [("A1000", ["A100", "V100"], "A100"), ("h100-sxm", ["H100-PCIE", "H100-SXM"], "H100-SXM"),
     ("GELU", ["gelu"], "gelu")],
)  # fmt: skip
def test_the_nearest_name_is_offered_whatever_its_case(name, known, offer):
    assert did_you_mean(name, known) == f" Did you mean {offer!r}?"


def test_nothing_is_offered_when_nothing_is_near():
    assert did_you_mean("xyz", ["A100"]) == ""
    assert did_you_mean("xyz", []) == ""


@given(known=st.lists(st.text("abcdef", min_size=3, max_size=8), min_size=1, unique=True), data=st.data())
def test_a_name_with_one_letter_too_many_is_recognised(known, data):
    name = data.draw(st.sampled_from(known))
    assert "Did you mean" in did_you_mean(name + "z", known)


def test_an_endless_name_is_answered_at_once():
    assert did_you_mean("A" * 10**7, ["A100"]) == ""
