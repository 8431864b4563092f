import subprocess
import sys

import pytest

from gnomon.store.writer import is_gone, this_process

HERE = this_process()


def test_a_process_that_asks_is_alive():
    assert not is_gone(HERE, HERE)
    assert this_process() == HERE


def test_another_process_is_alive_until_it_ends():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = this_process()._replace(pid=other.pid, process_started="")
        assert not is_gone(started, HERE)
        other.stdin.write(b"\n")
    assert is_gone(started, HERE)


@pytest.mark.skipif(not HERE.process_started, reason="this platform does not tell when a process began")
def test_a_number_that_was_given_to_another_process_is_not_the_writer():
    assert is_gone(HERE._replace(process_started="another time"), HERE)


def test_nothing_outlives_the_machine_being_started_anew():
    assert is_gone(HERE._replace(boot="another boot/pid:[1]"), HERE)


def test_a_process_of_another_host_or_container_is_not_judged():
    dead = HERE._replace(pid=2**22 + 1, process_started="never")  # larger than any number that Linux gives
    assert is_gone(dead, HERE)
    assert not is_gone(dead._replace(host="another"), HERE)
    assert not is_gone(dead._replace(boot=HERE.boot.partition("/")[0] + "/pid:[1]"), HERE)


def test_the_name_of_the_host_is_not_stored():
    import platform

    assert platform.node() not in "".join(map(str, HERE))
