"""Bars of the characterization of graph networks: what the method's card expects of its reduced setting, measured here.

`python benchmarks/gcn.py [--profile reduced|full] [--sessions N] [--out FILE]` runs the characterization, writes the
whole record and the bars to benchmarks/results/gcn.json, from which docs/gcn.md is printed, and exits with 1 when a bar
is missed. One thread, CPU time.

(a) Combine-first is at least twice as fast as aggregate-first where F >= 4 H.
(b) Gathering and scattering messages takes at least five times as long as CSR.
(c) Aggregation computes less than half a FLOP for each byte that it moves.
(d) The phases of a model sum to its time within 5 %, in the median over all passes and for nine tenths within 15 %.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnomon import pipeline
from gnomon.core.records import to_json
from gnomon.measure.phases.record import GcnCharacterization, only
from gnomon.store.store import open_store

RESULTS = Path(__file__).parent / "results" / "gcn.json"
COMBINE_FIRST, SCATTER, INTENSITY, COVER = 2.0, 5.0, 0.5, 0.05


def bars(found: GcnCharacterization) -> list[dict[str, Any]]:
    """Each bar with what was measured: the median over sessions, and the least and largest of them."""
    rows = []
    for one in found.group("widths"):
        features, hidden = one.widths
        other = only(found.group("widths"), widths=one.widths, order="aggregate-first")
        if one.order == "combine-first" and other is not None and features >= 4 * hidden:
            rows.append(_row(f"combine-first, {features} -> {hidden}", one.times_faster_than(other), COMBINE_FIRST))
    for one in found.group("features"):
        csr = only(found.group("features"), widths=one.widths, implementation="csr")
        if one.implementation == "scatter" and csr is not None:
            rows.append(_row(f"CSR against scatter, {one.widths[0]} features", csr.times_faster_than(one), SCATTER))
    most = max(i for one in found.timed if one.detail != "fused" and (i := one.intensity("aggregation")) is not None)
    rows.append(
        {
            "bar": "FLOP per byte of aggregation, most",
            "value": most,
            "wanted": f"< {INTENSITY}",
            "holds": most < INTENSITY,
        }
    )
    off = sorted(abs(one.cover - 1) for one in found.timed)
    middle, tail = statistics.median(off), off[int(0.9 * (len(off) - 1))]
    rows.append(
        {"bar": "phases' sum off the whole, median", "value": middle, "wanted": f"<= {COVER}", "holds": middle <= COVER}
    )
    rows.append(
        {"bar": "phases' sum off the whole, nine tenths", "value": tail, "wanted": "<= 0.15", "holds": tail <= 0.15}
    )
    return rows


def _row(name: str, ratio: Any, least: float) -> dict[str, Any]:
    return {"bar": name, "value": ratio.value, "low": ratio.low, "high": ratio.high, "wanted": f">= {least:g}",
            "holds": ratio.value >= least}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=["reduced", "full"], default="reduced")
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        with open_store(str(Path(folder) / "results.db")).begin("characterize", {}) as run:
            found = pipeline.characterize_gcn(
                run,
                options.profile,
                sessions=options.sessions,
                progress=lambda text: print(text, file=sys.stderr, flush=True),
            )
    rows = bars(found)
    document = {"bars": rows, "characterization": to_json(found)}
    options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for row in rows:
        ends = f" [{row['low']:.2f}, {row['high']:.2f}]" if "low" in row else ""
        verdict = "holds" if row["holds"] else "MISSED"
        print(f"{verdict:6} {row['bar']:40} {row['value']:.3g}{ends}, wanted {row['wanted']}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
