import pytest

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel import Parallel


def test_degrees_multiply_to_the_number_of_devices():
    assert Parallel(tensor=2, pipeline=3, data=4).devices == 24
    assert Parallel().is_single
    assert not Parallel(micro_batches=2).is_single


@pytest.mark.parametrize("name", ["tensor", "pipeline", "data", "micro_batches"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_degree_is_a_whole_number_of_at_least_one(name, value):
    with pytest.raises(UsageError, match=f"at least 1 for {name}; got {value!r}"):
        Parallel(**{name: value})


def test_unknown_schedules_and_zero_stages_are_refused():
    with pytest.raises(UsageError, match="wanted a schedule out of gpipe, 1f1b; got 'zb'"):
        Parallel(schedule="zb")
    with pytest.raises(UsageError, match="wanted zero out of 0, 1, 2, 3; got 4"):
        Parallel(data=2, zero=4)
    with pytest.raises(UsageError, match="zero 1 shares among replicas; with data 1 there is one"):
        Parallel(zero=1)
