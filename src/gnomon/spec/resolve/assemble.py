"""The whole task, from what is asked for and what its manifests say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from gnomon.core.digest import digest
from gnomon.core.errors import (
    ManifestError,
    NotRunnable,
    UnsatisfiedHardware,
    did_you_mean,
)
from gnomon.spec import task
from gnomon.spec.manifest import (
    HardwareSpec,
    SoftwareSpec,
    spec_digest,
)
from gnomon.spec.require import facts, malformed, missing_hardware, missing_software
from gnomon.spec.resolve.attempt import Attempt, Part
from gnomon.spec.resolve.build import build_dataset, build_model
from gnomon.spec.resolve.files import check_code
from gnomon.spec.resolve.references import combine, extend, find_part, named, open_manifest, split_combination
from gnomon.spec.resolve.sizes import solve_sizes

_DEVICE = re.compile(r"(cpu|mps|(cuda|xpu)(:[0-9]{1,3})?)")


def check_options(attempt: Attempt, dtype: str | None, mode: str | None, device: str) -> None:
    for name, value, known in (
        ("dtype", dtype, get_args(task.FloatDtype)),
        ("mode", mode, get_args(task.Mode)),
    ):
        if value is not None and value not in known:
            attempt.fail(
                ManifestError,
                f"--{name}: wanted one of {', '.join(known)}, got {value!r}.{did_you_mean(value, known)}",
            )
    if not _DEVICE.fullmatch(device):
        attempt.fail(ManifestError, f"--device: wanted 'cpu', 'cuda', 'cuda:1', 'mps' or 'xpu', got {device!r}")


def assemble(
    attempt: Attempt, target: str | Path, overrides: dict[str, int], dtype: str | None, mode: str | None, device: str
) -> task.Task:
    target, combination = split_combination(target)
    loaded, manifest = open_manifest(attempt, target)
    meta = manifest.metadata
    attempt.lock["task"] = manifest.digest
    spec, origin = extend(attempt, loaded, manifest)
    places: dict[str, tuple[str | int, ...]] = {}
    if spec.matrix is not None or combination is not None:
        spec, places = combine(attempt, spec, combination, loaded)
        origin |= dict.fromkeys(places, origin.get("matrix", loaded))
        attempt.lock["task"] = spec_digest("Task", meta.name, meta.version, spec)

    def part(kind: str) -> Part | None:
        key = kind.lower()
        return find_part(attempt, kind, getattr(spec, key), origin.get(key, loaded), places.get(key, ("spec", key)))

    model, dataset, software, hardware = part("Model"), part("Dataset"), part("Software"), part("Hardware")
    if model is None:  # nothing can be said about sizes without it
        attempt.stop_if_failed()
        raise ManifestError(f"{loaded.path}: spec.model: missing in this task and in all that it extends")
    sizes = solve_sizes(attempt, loaded, spec, model, dataset, overrides)
    check_requirements(attempt, software, hardware)
    chosen_dtype: Any = dtype or spec.dtype
    resolved_model = build_model(attempt, model, sizes, spec.dtype, chosen_dtype)
    chosen_mode: Any = mode or spec.mode
    resolved_dataset = build_dataset(attempt, dataset, chosen_mode)
    check_code(attempt, loaded, origin, spec)
    attempt.stop_if_failed()
    env = dict(software.spec.env) if software else {}
    exact = (software.spec if software else SoftwareSpec()).determinism
    settings = {"dims": sizes, "dtype": chosen_dtype, "mode": chosen_mode}
    return task.Task(
        name=meta.name,
        version=meta.version,
        description=meta.description,
        digest=digest({"lock": attempt.lock, **settings}),
        lock=dict(sorted(attempt.lock.items())),
        mode=chosen_mode,
        dims=sizes,
        dtype=chosen_dtype,
        device=device,
        threads=spec.threads,
        seed=spec.seed,
        model=resolved_model,
        dataset=resolved_dataset,
        training=(spec.training or task.Training()) if chosen_mode == "training" else spec.training,
        quality=spec.quality,
        protocol=spec.protocol,
        env=env,
        folder=str(loaded.path.parent.resolve()),
        trusted=attempt.trust,
        deterministic=exact.deterministic_algorithms,
        tf32=exact.tf32,
        scenario=spec.scenario,
        trace_level=spec.trace_level,
        metrics=spec.metrics,
        named=named(target, loaded) + (f"#{combination}" if combination is not None else ""),
        search=tuple(str(folder.resolve()) for folder in attempt.search),
    )


def check_requirements(attempt: Attempt, software: Part | None, hardware: Part | None) -> None:
    if software is not None:
        wrong = malformed(software.spec, attempt.trust)
        attempt.failures += [(ManifestError, f"{software.where(key)}: {text}") for key, text in wrong]
        if not wrong:
            missing = missing_software(software.spec)
            attempt.failures += [(NotRunnable, f"{software.where(key)}: {text}") for key, text in missing]
            if not missing:
                attempt.decide("software: everything that it names is installed")
    if hardware is not None and hardware.spec != HardwareSpec():
        missing = missing_hardware(hardware.spec, attempt.host if attempt.host is not None else _this_host())
        attempt.failures += [(UnsatisfiedHardware, f"{hardware.where(key)}: {text}") for key, text in missing]
        if not missing:
            attempt.decide("hardware: this machine meets every predicate")


def _this_host() -> Mapping[str, Any]:
    from gnomon.devices.host import host

    return facts(host())
