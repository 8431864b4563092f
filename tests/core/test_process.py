import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gnomon.core import errors
from gnomon.core.process import call, progress

LIMIT_S = 60.0


def _python(code):
    """A program for `builtins:exec`: a child that runs any code, with names of ours at hand."""
    return "import os, subprocess, sys, signal, time\nfrom gnomon.core.process import progress\n" + code


def _dies(pid):
    """Whether the process is gone within 30 s, told by the kernel."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], 30.0)[0])
    finally:
        os.close(watch)


def test_the_result_of_the_function_comes_back():
    assert call("builtins:len", [1, 2, 3], timeout_s=LIMIT_S) == 3


def test_arguments_and_results_of_any_size_and_alphabet_pass_unchanged():
    value = {"text": "Grüße\n\u2028 \x00", "many": list(range(200_000)), "none": None, "deep": [[{"a": 0.1}]]}
    assert call("builtins:dict", value, timeout_s=LIMIT_S) == value


def test_what_the_function_prints_is_not_taken_for_its_result():
    code = "print('{\"result\": 7}', flush=True); os.write(2, bytes(range(256)))"
    assert call("builtins:exec", _python(code), timeout_s=LIMIT_S) is None


def test_progress_arrives_in_order_before_the_result():
    told = []
    call(
        "builtins:exec", _python("for i in range(3): progress(f'step {i}')"), timeout_s=LIMIT_S, on_progress=told.append
    )
    assert told == ["step 0", "step 1", "step 2"]


def test_progress_outside_a_child_says_nothing(capfd):
    progress("nobody listens")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["GnomonError", "CheckFailed", "UsageError", "ManifestError", "NotRunnable"])
def test_our_errors_keep_their_class_and_message(name):
    code = f"from gnomon.core.errors import {name}\nraise {name}('dims.B is 0; wanted at least 1')"
    with pytest.raises(errors.GnomonError, match=r"^dims\.B is 0; wanted at least 1$") as caught:
        call("builtins:exec", _python(code), timeout_s=LIMIT_S)
    assert type(caught.value) is getattr(errors, name)


def test_a_subclass_that_only_the_child_knows_comes_back_as_its_nearest_known_base():
    code = "from gnomon.core.errors import NotRunnable\nclass Special(NotRunnable): pass\nraise Special('no such unit')"
    with pytest.raises(errors.NotRunnable, match="no such unit"):
        call("builtins:exec", _python(code), timeout_s=LIMIT_S)


def test_any_other_exception_is_told_with_the_end_of_its_traceback():
    with pytest.raises(
        errors.CheckFailed, match=r"json:loads failed:[\s\S]*decoder\.py[\s\S]*JSONDecodeError: Expecting"
    ):
        call("json:loads", "{", timeout_s=LIMIT_S)


def test_leaving_by_sys_exit_is_a_failure_with_a_message():
    with pytest.raises(errors.CheckFailed, match="SystemExit: 2"):
        call("sys:exit", 2, timeout_s=LIMIT_S)


def test_leaving_without_a_word_is_a_failure_that_names_the_exit_code():
    with pytest.raises(errors.CheckFailed, match="ended with exit code 3 and no result"):
        call("os:_exit", 3, timeout_s=LIMIT_S)


def test_a_result_that_json_cannot_hold_is_a_failure():
    with pytest.raises(errors.CheckFailed, match="not JSON compliant"):
        call("builtins:float", "nan", timeout_s=LIMIT_S)


def test_a_crash_in_native_code_names_the_signal_and_the_last_lines():
    code = "print('loading block 7', flush=True); signal.raise_signal(signal.SIGSEGV)"
    with pytest.raises(errors.CheckFailed, match=r"crashed with SIGSEGV[\s\S]*loading block 7[\s\S]*most recent call"):
        call("builtins:exec", _python(code), timeout_s=LIMIT_S)


def test_death_by_sigkill_points_at_the_systems_memory():
    with pytest.raises(errors.NotRunnable, match=r"killed from outside \(SIGKILL\)"):
        call("signal:raise_signal", int(signal.SIGKILL), timeout_s=LIMIT_S)


def test_a_call_that_takes_too_long_is_stopped():
    with pytest.raises(errors.NotRunnable, match="time:sleep did not end within 300 ms and was stopped"):
        call("time:sleep", 600, timeout_s=0.3)


def test_a_call_that_holds_the_interpreter_lock_is_stopped_too():
    with pytest.raises(errors.NotRunnable, match="did not end within 1 s"):
        call("builtins:exec", "sum(range(10**15))", timeout_s=1.0)


def test_a_call_that_touches_too_much_memory_is_stopped():
    code = "blocks = []\nwhile True: blocks.append(b'1' * 2**20)"
    with pytest.raises(errors.NotRunnable, match=r"was stopped at .*; its limit is 128 MiB"):
        call("builtins:exec", code, timeout_s=LIMIT_S, memory_bytes=2**27)


def test_memory_of_the_childs_own_children_counts():
    code = "subprocess.run([sys.executable, '-c', \"x = b'1' * 2**28; import time; time.sleep(600)\"])"
    with pytest.raises(errors.NotRunnable, match="its limit is 128 MiB"):
        call("builtins:exec", _python(code), timeout_s=LIMIT_S, memory_bytes=2**27)


def test_reserving_address_space_is_not_using_memory():
    code = "import mmap\nspace = mmap.mmap(-1, 2**33)"
    assert call("builtins:exec", code, timeout_s=LIMIT_S, memory_bytes=2**27) is None


def test_running_out_of_memory_inside_is_not_runnable_rather_than_failed():
    with pytest.raises(errors.NotRunnable, match="ran out of memory"):
        call("builtins:bytearray", 2**60, timeout_s=LIMIT_S)


def test_what_the_child_started_dies_with_it():
    told = []
    code = "progress(str(subprocess.Popen(['sleep', '600']).pid))"
    call("builtins:exec", _python(code), timeout_s=LIMIT_S, on_progress=told.append)
    assert _dies(int(told[0]))


def test_a_grandchild_that_keeps_the_pipe_open_does_not_hold_up_the_end():
    code = "pid = os.fork()\nif pid == 0:\n    time.sleep(600)\nos._exit(5)"
    with pytest.raises(errors.CheckFailed, match="exit code 5"):
        call("builtins:exec", _python(code), timeout_s=LIMIT_S)


def test_an_error_in_the_progress_callback_kills_the_child():
    told = []

    def listen(text):
        told.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(
            "builtins:exec",
            _python("progress(str(os.getpid())); time.sleep(600)"),
            timeout_s=LIMIT_S,
            on_progress=listen,
        )
    assert _dies(told[0])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits through pidfd, which is Linux")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_child_and_grandchild_die_when_their_caller_is_killed(how):
    inner = _python("progress(f\"{os.getpid()} {subprocess.Popen(['sleep', '600']).pid}\"); time.sleep(600)")
    outer = (
        "import signal, sys\nfrom gnomon.core.process import call\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits 'ignore'
        f"call('builtins:exec', {inner!r}, timeout_s=600, on_progress=lambda text: print(text, flush=True))"
    )
    source = Path(errors.__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
    ) as caller:
        child, grandchild = map(int, caller.stdout.readline().split())
        caller.send_signal(how)
        assert _dies(child)
        assert _dies(grandchild)


def test_a_module_in_the_current_folder_cannot_replace_one_of_pythons(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    assert call("statistics:median", [1, 2, 9], timeout_s=LIMIT_S) == 2


def test_extra_environment_reaches_the_child_and_not_us():
    name = "GNOMON_TEST_EXTRA"
    assert call("os:getenv", name, timeout_s=LIMIT_S, env={name: "here"}) == "here"
    assert name not in os.environ


def test_a_time_limit_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="timeout_s must be positive; got 0"):
        call("builtins:len", [], timeout_s=0)
