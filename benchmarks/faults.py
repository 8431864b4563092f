"""What survives when things go wrong: `kill -9` at random moments, and malformed manifests.

    python benchmarks/faults.py [--trials 20] [--seed 0] [--out benchmarks/results/faults.json]
    python benchmarks/faults.py --real 'gcn-node-classification --quick' --out benchmarks/results/faults-examine.json

A killed process leaves the store as a crash of the program does; a power cut cannot be tried here (SQLite is set to
wait for the disk at every commit because of it). Three stretches of a writer's life are killed, each many times:

- a run that begins, adds large records and ends (with `--real`: `gnomon examine` itself, instead);
- the very first opening of a store, which creates its tables;
- a migration that rewrites every result.

After each kill the store must open; every result that was there before, or that the writer had reported as stored,
must be there with its digest; a run that had begun must show as broken; the next run must be able to write.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from gnomon import __version__
from gnomon.core.errors import GnomonError
from gnomon.core.stats import Interval
from gnomon.forecast.record import Estimate, Forecast, OpForecast
from gnomon.measure.record import Environment, LevelRun, Measurement, OperatorTime, Session, Span
from gnomon.store import migrate
from gnomon.store.check import check
from gnomon.store.connect import engine_for
from gnomon.store.store import Store, open_store

RECORDS = 8  # of some hundred kB each, in a run that is to be killed
OLD_RUNS = 40  # in the store that is migrated
LATER_VERSION = '''"""A later version, made up: rewrites every result, so that there is time to be killed."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"


def upgrade() -> None:
    op.add_column("results", sa.Column("note", sa.Text))
    connection = op.get_bind()
    for number in connection.execute(sa.text("SELECT id FROM results")).scalars().all():
        connection.execute(sa.text("UPDATE results SET note = hex(payload) WHERE id = :number"), {{"number": number}})
    op.create_index("results_note", "results", ["note"])
'''


class Ending(NamedTuple):
    """What a writer had reported when it ended, and whether it did so before it could be killed."""

    lines: list[str]
    was_killed: bool
    seconds: float


class Trial(NamedTuple):
    """stage: how far the writer had come when it was killed. lost: what was lost, None when nothing was."""

    stage: str
    lost: str | None


# The writers: each runs in a process of its own and reports what it knows to be on the disk.


def write_run(path: str) -> None:
    with open_store(path).begin("examine", {"task": "synthetic"}, "synthetic") as run:
        say(f"begun {run.id}")
        for i in range(RECORDS):
            run.add(synthetic_measurement(i) if i % 2 == 0 else synthetic_forecast(i))
            say("stored")
    say(f"ended {run.id}")


def write_first(path: str) -> None:
    open_store(path)


def write_later_version(path: str) -> None:
    migrate.upgrade(engine_for(path), Path(path).parent / "later")


WRITERS: dict[str, Callable[[str], None]] = {
    "run": write_run,
    "first opening": write_first,
    "migration": write_later_version,
}


def say(text: str) -> None:
    print(text, flush=True)


def synthetic_measurement(seed: int) -> Measurement:
    rng = random.Random(seed)
    times = tuple(rng.uniform(1e-3, 2e-3) for _ in range(300))
    session = Session(times, times, (0,) * 300, 10, True, 1.0, 0.1, 0.01, 10**9)
    spans = tuple(Span(f"layer.{i}", "layer", rng.random(), 1e-4, 1e-4, None, {"shape": [8, 128]}) for i in range(2000))
    operators = tuple(OperatorTime("aten.mm.default", f"layer.{i}", ((8, 128),), 1, 1e-4, 1e-4) for i in range(500))
    environment = Environment({"cpu": "synthetic"}, "3", {"torch": "2"}, 1, "default", "cpu", "2026-01-01T00:00:00Z")
    return Measurement(
        task="synthetic", task_digest="sha256:0", variant="eager", mode="inference", batch=8, dims={"B": 8},
        latency={"p50": Interval(statistics.median(times), 1e-3, 2e-3, 0.95, 3)}, cpu_latency={}, throughput_per_s=1.0,
        levels=(LevelRun("model", (session,) * 3, None),), layers=(), operators=operators, operators_cover=None,
        rest="", spans=spans, output_digest="sha256:1", environment=environment,
    )  # fmt: skip


def synthetic_forecast(seed: int) -> Forecast:
    rng = random.Random(seed)
    times = [Estimate(rng.uniform(1e-5, 1e-4), 1e-6, 1e-3) for _ in range(1500)]
    ops = tuple(OpForecast(i, "aten.mm", f"layer.{i}", "forward", "matmul", t, "memory") for i, t in enumerate(times))
    return Forecast(
        task="synthetic", graph_digest="sha256:2", device=f"device {seed}", predictor="physics", dtype="float32",
        mode="inference", batch=8, dims={"B": 8}, total=times[0], bound="memory", bound_shares={"memory": 1.0}, ops=ops,
        flop=1e9, mfu=0.1, peak_memory_bytes=1e9, memory_bytes=1e10, fits=True, unknown_ops={}, warnings=(),
    )  # fmt: skip


# The trials.


def run_until(command: list[str], moment_s: float | None, env: dict[str, str] | None = None) -> Ending:
    """Start a process that says 'ready' when it is; kill it `moment_s` later, or let it end when that is None."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=env)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the writer did not start: {' '.join(command)}")
        began = time.monotonic()
        if moment_s is not None:
            time.sleep(moment_s)
            process.kill()
        lines = process.stdout.read().splitlines()
        code = process.wait()
    finally:
        process.kill()
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the writer failed by itself with exit code {code}")
    return Ending(lines, code != 0, time.monotonic() - began)


def writer(name: str, path: Path) -> list[str]:
    return [sys.executable, __file__, "--writer", name, str(path)]


def state(store: Store) -> dict[tuple[str, int], str]:
    """(run, position) -> digest. That the records have these digests is for `check` to say."""
    return {(row.run_id, row.position): row.digest for row in store.results()}


def lost_in(path: Path, before: dict[tuple[str, int], str], lines: list[str]) -> str | None:
    """What the store at `path` lost of what was there before and of what the killed writer had reported."""
    store = open_store(str(path))
    now, problems = state(store), check(store).problems
    if problems:
        return problems[0]
    if any(now.get(key) != wanted for key, wanted in before.items()):
        return "an earlier result is gone or another"
    begun = [line.split()[1] for line in lines if line.startswith("begun")]
    if begun:
        stored, reported = sum(run == begun[0] for run, _ in now), lines.count("stored")
        if stored not in (reported, reported + 1):  # the kill may fall between the commit and the report
            return f"{reported} results were reported as stored, {stored} are there"
        if len(store.load_all(begun[0], "measurement") + store.load_all(begun[0], "forecast")) != stored:
            return "a result is there but is no record"
        if (status := store.run(begun[0]).status) != "broken":
            return f"the killed run shows as {status}"
    with store.begin("after", {}) as run:
        run.add(synthetic_forecast(1))
    return None


def kill_runs(folder: Path, trials: int, rng: random.Random) -> list[Trial]:
    """One store, in which every earlier trial's results must stay."""
    path = folder / "runs.db"
    length = max(run_until(writer("run", path), None).seconds for _ in range(2))
    done: list[Trial] = []
    while len(done) < trials:
        before = state(open_store(str(path)))
        ending = run_until(writer("run", path), rng.uniform(0, length))
        if not any(line.startswith("ended") for line in ending.lines):  # else it was too fast to be killed in time
            stage = f"{ending.lines.count('stored')} of {RECORDS} stored" if ending.lines else "not begun"
            done.append(Trial(stage, attempt(lost_in, path, before, ending.lines)))
    return done


def kill_openings(folder: Path, trials: int, rng: random.Random) -> list[Trial]:
    length = max(run_until(writer("first opening", folder / f"whole{i}.db"), None).seconds for i in range(2))
    done: list[Trial] = []
    for i in range(100 * trials):
        path = folder / f"first{i}.db"
        ending = run_until(writer("first opening", path), rng.uniform(0, length))
        if ending.was_killed and len(done) < trials:
            stage = f"{path.stat().st_size if path.exists() else 'no'} bytes written"
            done.append(Trial(stage, attempt(lost_in, path, {}, [])))
        if len(done) == trials:
            return done
    raise RuntimeError("the first opening is too fast to be killed on this machine")


def kill_migrations(folder: Path, trials: int, rng: random.Random) -> list[Trial]:
    old = folder / "old.db"
    store = open_store(str(old))
    for i in range(OLD_RUNS):
        with store.begin("examine", {"i": i}) as run:
            run.add(synthetic_forecast(i))
    before, newest = state(store), migrate.newest()
    later = folder / "later"
    shutil.copytree(migrate.SCRIPTS, later, ignore=shutil.ignore_patterns("__pycache__"))
    (later / "versions" / "v9999_later.py").write_text(LATER_VERSION.format(newest=newest))
    path = folder / "migrated.db"
    shutil.copy(old, path)
    length = run_until(writer("migration", path), None).seconds
    done: list[Trial] = []
    while len(done) < trials:
        for file in folder.glob("migrated.db*"):
            file.unlink()
        shutil.copy(old, path)
        if run_until(writer("migration", path), rng.uniform(0, length)).was_killed:
            version = migrate.version(engine_for(str(path)))
            if version == newest:  # as if nothing had been tried: this Gnomon opens it
                done.append(Trial("before the commit", attempt(lost_in, path, before, [])))
            else:
                store = Store(engine_for(str(path)))
                whole = version == "9999" and not check(store).problems and state(store) == before
                done.append(Trial("after the commit", None if whole else f"stuck at version {version}"))
    return done


def kill_examine(folder: Path, trials: int, rng: random.Random, arguments: str) -> list[Trial]:
    """`gnomon examine` itself; what it had stored is read from the store, as it reports nothing."""
    path = folder / "examine.db"
    run = [
        sys.executable,
        "-m",
        "gnomon",
        "examine",
        *shlex.split(arguments),
        "--store",
        str(path),
        "--out",
        str(folder / "report"),
    ]
    command = ["sh", "-c", 'echo ready; exec "$@" >/dev/null', "sh", *run]
    env = os.environ | {"GNOMON_HOME": str(folder / "home")}
    length = run_until(command, None, env).seconds
    done: list[Trial] = []
    while len(done) < trials:
        before, known = state(open_store(str(path))), {row.id for row in open_store(str(path)).runs(limit=None)}
        if not run_until(command, rng.uniform(0, length), env).was_killed:
            continue
        new = [row for row in open_store(str(path)).runs(limit=None) if row.id not in known]
        lost = attempt(lost_in, path, before, [])
        wrong = [row.status for row in new if row.status != "broken" and row.ended_at is None]
        stage = f"{new[0].results} results stored" if new else "not begun"
        done.append(Trial(stage, f"the killed run shows as {wrong[0]}" if wrong else lost))
    return done


def attempt(look: Callable[..., str | None], *arguments: object) -> str | None:
    """What `look` finds lost; a store that cannot be read has lost everything."""
    try:
        return look(*arguments)
    except (GnomonError, sa.exc.SQLAlchemyError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def malformed(count: int) -> dict[str, Any] | None:
    """The result of malformed_manifests.check(count), which lies beside this file; None when it does not."""
    path = Path(__file__).parent / "malformed_manifests.py"
    spec = importlib.util.spec_from_file_location("malformed_manifests", path)
    if not path.exists() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules["malformed_manifests"] = module  # so that its dataclasses find their module
    spec.loader.exec_module(module)
    result: dict[str, Any] = module.check(count)
    return result


def report(title: str, trials: list[Trial]) -> dict[str, object]:
    intact = sum(trial.lost is None for trial in trials)
    stages = dict(sorted(Counter(trial.stage for trial in trials).items()))
    say(f"kill -9 {title}: {intact} of {len(trials)} stores intact")
    say(f"    killed at: {', '.join(f'{stage} ({n})' for stage, n in stages.items())}")
    for trial in trials:
        if trial.lost is not None:
            say(f"    LOST at {trial.stage}: {trial.lost}")
    lost = [trial.lost for trial in trials if trial.lost]
    return {"trials": len(trials), "intact": intact, "stages": stages, "lost": lost}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", metavar="ARGUMENTS", help="kill `gnomon examine ARGUMENTS` instead of synthetic runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "faults.json")
    parser.add_argument("--writer", nargs=2, metavar=("NAME", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer:
        say("ready")
        WRITERS[options.writer[0]](options.writer[1])
        return 0
    rng, found = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory(prefix="gnomon-faults-") as name:
        folder = Path(name)
        if options.real:
            title = f"of gnomon examine {options.real}"
            found[title] = report(title, kill_examine(folder, options.trials, rng, options.real))
        else:
            found["during a run"] = report("during a run", kill_runs(folder, options.trials, rng))
            found["during the first opening"] = report(
                "during the first opening", kill_openings(folder, options.trials, rng)
            )
            found["during a migration"] = report("during a migration", kill_migrations(folder, options.trials, rng))
    manifests = malformed(200)
    if manifests is None:
        say("malformed manifests: not checked, benchmarks/malformed_manifests.py is not there")
    else:
        passed, cases = manifests["passed"], manifests["cases"]
        say(f"malformed manifests: {passed} of {cases} gave one screen of error and exit code 2, and ran nothing")
        for name, complaint in manifests["failures"].items():
            say(f"    FAILED {name}: {complaint}")
    options.out.parent.mkdir(exist_ok=True)
    document = {
        "taken_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "gnomon": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seed": options.seed,
        "kill -9": found,
        "malformed manifests": manifests,
    }
    options.out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    whole = all(entry["intact"] == entry["trials"] for entry in found.values())
    return 0 if whole and (manifests is None or manifests["passed"] == manifests["cases"]) else 1


if __name__ == "__main__":
    sys.exit(main())
