"""Run a lock or a reference log again and say whether the result is the same; write a reference log."""

import datetime
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gnomon.core.digest import file_digest
from gnomon.core.errors import ManifestError, UsageError
from gnomon.core.process import call
from gnomon.core.records import to_json
from gnomon.measure import reproduction
from gnomon.measure.child import child_env, environment
from gnomon.measure.reproduction import Part, Reproduction
from gnomon.pipeline._progress import Progress, silent
from gnomon.spec.load import load
from gnomon.spec.lock import Lock, absolute_target, check_lock, lock_of, relative_target
from gnomon.spec.manifest import API_VERSION, Expected, ReferenceLog, ReferenceLogSpec, Result, without_defaults
from gnomon.spec.task import Task
from gnomon.spec.write import yaml_text
from gnomon.store.store import Run

LARGEST_OUTPUTS = 16 * 2**20  # bytes of values that a log keeps; beyond that only digests

# Sums in another order differ by rounding that grows with depth: about the square root of the significand's bits is
# kept, relative to each value and to the largest of the output.
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}


def verify_lock(task: Task, lock: Lock, run: Run, *, against: str = "", progress: Progress = silent) -> Reproduction:
    """Is the task still what the lock pins, and does it compute what it did?

    task: the lock resolved again. A lock that states no outputs is run twice, in two fresh processes, whose outputs
    must agree to the last bit. Nothing is run when the specification differs: it would be another task.
    Raises what building and running the task raises.
    """
    parts = reproduction.specification(_differences(task, lock))
    if not any(map(reproduction.is_failure, parts)):
        progress("running the task in a fresh process")
        first = _computed(task, None, False)
        if lock.outputs is not None:
            same = first["rounded"] == lock.outputs
            detail = "those that are locked, to a thousandth of the largest value"
            parts.append(Part("outputs", "all", "same" if same else "different", detail if same else f"not {detail}"))
        else:
            progress("running it once more")
            again = _computed(task, None, False)
            for one, other in zip(first["outputs"], again["outputs"], strict=True):
                same = one["digest"] == other["digest"]
                detail = "two runs here agree bit for bit" if same else "two runs here differ: it is not deterministic"
                parts.append(Part("outputs", one["name"], "same" if same else "different", detail))
    return _finished(task, parts, against, run)


def read_log(path: Path) -> ReferenceLog:
    """The reference log in a file. Raises ManifestError when it is another kind of manifest, and as `load` does."""
    loaded = load(path)
    manifest = loaded.manifest()
    if not isinstance(manifest, ReferenceLog):
        raise ManifestError(f"{loaded.at(('kind',))}: kind: wanted a ReferenceLog, got a {manifest.kind}")
    return manifest


def log_lock(path: Path) -> Lock:
    """The lock inside a reference log, its target made absolute."""
    import dataclasses

    lock = read_log(path).spec.lock
    return dataclasses.replace(lock, target=absolute_target(lock.target, path.parent))


def verify_log(
    task: Task, path: Path, run: Run, *, sessions: int | None = None, progress: Progress = silent
) -> Reproduction:
    """Does the task give what the reference log says: outputs, its own metric, and times on such a machine?

    task: the log's lock resolved again. sessions: fresh processes to time (default: the task's protocol). Versions of
    software that differ are told and do not count on their own. Times are left alone on another kind of machine.
    Raises what running the task raises, DamagedData for a file of expected outputs that was changed.
    """
    log = read_log(path).spec
    parts = reproduction.specification(_differences(task, log.lock))
    if not any(map(reproduction.is_failure, parts)):
        here = environment(task, "", "")
        parts += reproduction.software(log.software, _software(here.python, here.packages))
        machine = reproduction.hardware(log.machine, here.machine, task.device)
        parts.append(machine)
        with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
            progress("running the task in a fresh process")
            found = _computed(task, folder, "quality" in log.metrics)
            by_name = {one["name"]: one for one in found["outputs"]}
            parts += [reproduction.output(one, by_name.get(one.name), path.parent) for one in log.outputs]
        if "quality" in log.metrics:
            parts.append(reproduction.quality(log.metrics["quality"], found["quality"]))
        times = {name: result for name, result in log.metrics.items() if name != "quality"}
        is_same = machine.verdict == "same"
        fresh: Mapping[Any, Result] = {}
        if times and is_same:
            fresh = reproduction.results(_timed(task, run, sessions, progress), tuple(times))
        parts += [reproduction.performance(name, result, fresh.get(name), is_same) for name, result in times.items()]
    return _finished(task, parts, str(path), run)


def record_log(
    task: Task, path: Path, run: Run, *, author: str, sessions: int | None = None, progress: Progress = silent
) -> ReferenceLog:
    """Run the task, write what came as a reference log, with the outputs' values as .npy files beside it.

    author: who vouches for it. Returns the log as it reads back. Raises UsageError when it cannot be written, and what
    running the task raises.
    """
    with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
        progress("running the task in a fresh process")
        found = _computed(task, folder, "quality" in task.metrics)
        metrics: dict[Any, Result] = {}
        if set(task.metrics) - {"quality"}:
            metrics.update(reproduction.results(_timed(task, run, sessions, progress), task.metrics))
        if "quality" in task.metrics:
            better, loss = task.quality.higher_is_better, task.quality.largest_loss
            metrics["quality"] = Result(found["quality"], "", 1, higher_is_better=better, tolerance=loss)
        here = environment(task, "", "")
        spec = ReferenceLogSpec(
            lock=_portable(lock_of(task, found["rounded"]), path),
            device=task.device,
            machine=here.machine,
            software=_software(here.python, here.packages),
            metrics={name: metrics[name] for name in task.metrics},
            outputs=_kept(found["outputs"], path),
            author=author,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
    document = {
        "apiVersion": API_VERSION,
        "kind": "ReferenceLog",
        "metadata": {"name": task.name, "version": task.version, "description": f"What {task.name} gave {author}."},
        "spec": without_defaults(spec),
    }
    _write(path, yaml_text(document))
    return read_log(path)


def _portable(lock: Lock, path: Path) -> Lock:
    import dataclasses

    return dataclasses.replace(lock, target=relative_target(lock.target, path.parent))


def _kept(outputs: Sequence[Mapping[str, Any]], path: Path) -> tuple[Expected, ...]:
    """Expected outputs, their files moved beside the log unless they are too large to keep."""
    import numpy as np

    total = sum(Path(one["file"]).stat().st_size for one in outputs)
    kept = []
    for i, one in enumerate(outputs):
        expected = Expected(one["name"], one["dtype"], tuple(one["shape"]), one["digest"])
        if total <= LARGEST_OUTPUTS:
            name = f"{path.stem}.output-{i}.npy"
            values = np.load(one["file"], allow_pickle=False)
            finite = np.abs(values[np.isfinite(values)]) if values.dtype.kind in "fc" else np.zeros(0)
            tolerance = _TOLERANCE.get(one["dtype"], 0.0)
            try:
                shutil.copyfile(one["file"], path.parent / name)
            except OSError as error:
                raise UsageError(f"{path.parent / name}: cannot be written: {error.strerror}") from error
            expected = Expected(
                one["name"],
                one["dtype"],
                tuple(one["shape"]),
                one["digest"],
                file=name,
                sha256=file_digest(path.parent / name).removeprefix("sha256:"),
                atol=tolerance * float(finite.max(initial=0.0)),
                rtol=tolerance,
            )
        kept.append(expected)
    return tuple(kept)


def _differences(task: Task, lock: Lock) -> list[str]:
    differences = check_lock(task, lock)
    if not differences and lock.digest is not None and lock.digest != task.digest:
        differences.append("setting: sizes, dtype or mode are not those that are locked")
    return differences


def _computed(task: Task, folder: str | None, quality: bool) -> Any:
    arguments = {"task": to_json(task), "folder": folder, "quality": quality}
    target = "gnomon.measure.reproduce:outputs"
    return call(target, arguments, timeout_s=task.protocol.timeout_s, env=child_env(task))


def _timed(task: Task, run: Run, sessions: int | None, progress: Progress) -> Any:
    from gnomon.pipeline.measuring import measure

    return measure(task, run, levels=("model",), sessions=sessions, progress=progress)


def _software(python: str, packages: Mapping[str, str]) -> dict[str, str]:
    return {"python": python, **packages}


def _finished(task: Task, parts: list[Part], against: str, run: Run) -> Reproduction:
    failed = any(map(reproduction.is_failure, parts))
    verdict: Literal["reproduced", "not reproduced"] = "not reproduced" if failed else "reproduced"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = Reproduction(task.name, task.digest, against, verdict, tuple(parts), now)
    run.add(result)
    return result


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
