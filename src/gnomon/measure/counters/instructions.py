"""Instructions of one call, counted exactly by valgrind's callgrind: the same number on a busy machine and a quiet one.

Valgrind runs a program some fifty times slower and one thread at a time: it is for small tasks, and only when asked
for. Counting is on for the calls alone. Calls are counted in blocks of 1, 4, 7 and 10, and what a call takes is a third
of the difference between a block and the one before: what surrounds the calls cancels.
"""

import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnomon.core.errors import CheckFailed, GnomonError
from gnomon.core.process import JSON, call
from gnomon.core.records import from_json, to_json
from gnomon.core.stats import t_interval
from gnomon.measure.child import child_env
from gnomon.measure.counters import client
from gnomon.measure.record import Counter
from gnomon.spec.task import Task

LONGEST_CALL_S = 0.1  # of CPU time; the calls then take a few minutes
_BLOCKS = (1, 4, 7, 10)
_WARM_CALLS = 3
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_PART = re.compile(r"^part: (\d+)$", re.MULTILINE)
_NOTE = (
    "user mode, one process, Python included; valgrind shows programs a processor without AVX-512, so libraries run "
    "their code for AVX2; the interval is over blocks of calls in one process"
)


def why_not(task: Task, call_cpu_s: float) -> str | None:
    """The reason why the instructions of this task cannot be counted here, or None. call_cpu_s: measured, untraced."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed; install it with the system's package manager"
    if task.device != "cpu":
        return f"valgrind sees the CPU only; this task runs on {task.device!r}"
    if call_cpu_s > LONGEST_CALL_S:
        return (
            f"one call takes {call_cpu_s:.2f} s of CPU time, and some fifty times that under valgrind; the limit is "
            f"{LONGEST_CALL_S} s. Give the task a smaller batch"
        )
    return client.why_not()


def count_instructions(task: Task, call_cpu_s: float, say: Callable[[str], None]) -> Counter:
    """Instructions per call of the plain task, or the reason why there is no such number.

    Takes minutes: Python and torch start under valgrind, too. The task's time limit holds for all of it.
    """
    reason = why_not(task, call_cpu_s)
    if reason is not None:
        return Counter("instructions", "valgrind", None, None, reason)
    say("counting instructions under valgrind, some fifty times slower; this takes minutes")
    try:
        totals = call(
            f"{__name__}:under_valgrind",
            {"task": to_json(task)},
            timeout_s=task.protocol.timeout_s,
            env={**child_env(task), "PYTHONHASHSEED": "0"},
        )
    except GnomonError as error:
        return Counter("instructions", "valgrind", None, None, f"the task did not run under valgrind: {error}")
    pairs = zip(itertools.pairwise(totals), itertools.pairwise(_BLOCKS), strict=True)
    per_call = [(more - less) / (calls - fewer) for (less, more), (fewer, calls) in pairs]
    return Counter("instructions", "valgrind", t_interval(per_call), 1.0, None, _NOTE)


def under_valgrind(arguments: JSON) -> list[int]:
    """Start valgrind on `watched`; the total of each block. Raises CheckFailed with valgrind's last words."""
    with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
        request = Path(folder, "request.json")
        request.write_text(json.dumps(arguments))
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        command += [sys.executable, "-P", "-m", __name__, str(request)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            tail = "\n".join(done.stdout.strip().splitlines()[-12:])
            raise CheckFailed(f"valgrind ended with {done.returncode}:\n{tail}")
        return block_totals([path.read_text() for path in Path(folder).glob("counts.*")])


def block_totals(dumps: Sequence[str]) -> list[int]:
    """The instructions of each block, from what callgrind wrote for each. Raises CheckFailed when one is missing."""
    totals: dict[int, int] = {}
    for text in dumps:
        part, total = _PART.search(text), _TOTALS.search(text)
        if part is not None and total is not None:
            totals[int(part[1])] = int(total[1])
    wanted = range(1, len(_BLOCKS) + 1)
    if not set(wanted) <= set(totals):
        raise CheckFailed(
            f"callgrind wrote parts {sorted(totals)}; wanted {list(wanted)}. Is valgrind older than 3.13?"
        )
    return [totals[part] for part in wanted]


def watched(arguments: Mapping[str, Any]) -> None:
    """In the process that valgrind runs: build the task, warm up, and count each block of calls."""
    import gc

    import torch

    from gnomon.workload import program

    task: Task = from_json(arguments["task"], Task)
    torch.set_num_threads(task.threads)
    step = program.build(task).step
    for _ in range(_WARM_CALLS):
        step()
    gc.disable()
    valgrind = client.Client()
    valgrind.request(client.START)
    for calls in _BLOCKS:
        step()  # what was translated last is not counted as it is translated, and caches of Python are warm again
        valgrind.request(client.ZERO)
        for _ in range(calls):
            step()
        valgrind.request(client.DUMP)
    valgrind.request(client.STOP)


if __name__ == "__main__":
    watched(json.loads(Path(sys.argv[1]).read_text()))
