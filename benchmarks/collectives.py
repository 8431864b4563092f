"""How well `forecast.collectives` meets published NCCL times, system by system, and how far each system moves it.

`python benchmarks/collectives.py PACK [--out FILE]` reads PACK/modern/nccl.parquet and allreduce.parquet
(aiconfigurator-core, Apache-2.0, (c) NVIDIA), prints three tables and stores them as JSON:
(a) the unit of message_size: bandwidth of the largest messages in half precision and int8, were it elements or bytes;
(b) the error of the shipped constants per system, collective and group size, and how often the interval holds;
(c) with each system held out, the constants that the others give, and the error that these have on it.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.devices import catalogue
from gnomon.forecast.collectives import CONSTANTS, Constants, Kind, Transfer, transfer_time

RESULTS = Path(__file__).parent / "results" / "collectives.json"
SYSTEMS = {"a100_sxm": "A100-80GB-SXM", "l40s": "L40S", "rtx_pro_6000_server": "RTX-PRO-6000"}
ITEM = {"half": 2, "int8": 1, "bfloat16": 2}
KINDS: dict[str, Kind] = {
    "all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}  # fmt: skip
SMALL, LARGE = 2**16, 2**26  # bytes: where latency is all there is, and where bandwidth is


class Row(NamedTuple):
    system: str
    source: str
    kind: Kind
    dtype: str
    group: int
    elements: int
    seconds: float

    @property
    def bytes(self) -> int:
        return self.elements * ITEM[self.dtype]

    @property
    def share(self) -> float:
        """Part of the tensor that passes each link: 2 (g - 1) / g for an all-reduce, else half of it."""
        return (2 if self.kind == "all_reduce" else 1) * (self.group - 1) / self.group

    @property
    def hops(self) -> int:
        return (2 if self.kind == "all_reduce" else 1) * (self.group - 1)

    @property
    def reached(self) -> float:
        """Share of the link's bandwidth."""
        link = catalogue.get(SYSTEMS[self.system]).link_b_s
        assert link is not None
        return self.share * self.bytes / self.seconds / link.value


def read(pack: Path) -> list[Row]:
    """NCCL's own times, and all-reduces of frameworks under graph replay (eager ones hold the host's time as well)."""
    import pyarrow.parquet as parquet

    rows = []
    for r in parquet.read_table(pack / "modern" / "nccl.parquet").to_pylist():
        rows.append(Row(r["system"], "NCCL", KINDS[r["op_name"]], r["nccl_dtype"], r["num_gpus"], r["message_size"],
                        r["latency_ms"] / 1e3))  # fmt: skip
    for r in parquet.read_table(pack / "modern" / "allreduce.parquet").to_pylist():
        if "eager" not in r["kernel_source"]:
            rows.append(Row(r["system"], f"{r['framework']} {r['version']}", "all_reduce", r["allreduce_dtype"],
                            r["num_gpus"], r["message_size"], r["latency_ms"] / 1e3))  # fmt: skip
    return rows


def units(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Bandwidth of the largest NCCL all-reduce of each group, were message_size elements, and were it bytes."""
    table = []
    largest: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        if row.source == "NCCL" and row.kind == "all_reduce":
            key = (row.system, row.group, row.dtype)
            largest[key] = max(row, largest.get(key, row), key=lambda r: r.elements)
    for system, group in sorted({key[:2] for key in largest}):
        half, int8 = (largest[system, group, d] for d in ("half", "int8"))
        as_bytes = [r.share * r.elements / r.seconds for r in (half, int8)]
        table.append({"system": system, "group": group, "half_over_int8_if_elements": half.reached / int8.reached,
                      "half_over_int8_if_bytes": as_bytes[0] / as_bytes[1]})  # fmt: skip
    return table


def errors(rows: Sequence[Row], constants: Constants = CONSTANTS) -> dict[str, Any]:
    """Mean, median and worst relative error, and the share of times that lie in the interval."""
    found, inside = [], 0
    for row in rows:
        device = catalogue.get(SYSTEMS[row.system])
        time = transfer_time(Transfer(row.kind, row.bytes, row.group, row.group), device, constants=constants)
        found.append(abs(time.value_s / row.seconds - 1))
        inside += time.low_s <= row.seconds <= time.high_s
    return {"n": len(found), "mean": statistics.mean(found), "median": statistics.median(found), "worst": max(found),
            "inside": inside / len(found)}  # fmt: skip


def without(rows: Sequence[Row], held_out: str) -> Constants:
    """The constants that the other systems give: medians of start, hop and of what large messages reach."""
    others = [r for r in rows if r.system != held_out and r.source == "NCCL"]
    small: dict[tuple[str, int], list[float]] = defaultdict(list)
    for r in others:
        if r.bytes <= SMALL and r.kind == "all_gather":
            small[r.system, r.group].append(r.seconds)
    systems = sorted({r.system for r in others})
    middle = {key: statistics.median(values) for key, values in small.items()}
    hop = statistics.median((middle[s, 8] - middle[s, 2]) / 6 for s in systems)
    start = statistics.median(middle[s, 2] for s in systems) - hop

    def reached(fabric: bool, pair: bool) -> float | None:
        values = [r.reached for r in others if r.bytes >= LARGE
                  and (r.system == "a100_sxm") is fabric and (fabric or (r.group == 2) is pair)]  # fmt: skip
        return statistics.median(values) if values else None

    pair = reached(False, True)
    fabric, shared = reached(True, True), reached(False, False)
    assert pair is not None  # two of the three systems have PCI Express
    assert shared is not None
    return CONSTANTS._replace(
        start_s=CONSTANTS.start_s._replace(value=start),
        hop_s=CONSTANTS.hop_s._replace(value=hop),
        fabric=CONSTANTS.fabric._replace(value=fabric if fabric is not None else pair),
        pair=CONSTANTS.pair._replace(value=pair),
        shared=CONSTANTS.shared._replace(value=shared),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = read(arguments.pack)
    nccl = [r for r in rows if r.source == "NCCL"]
    result: dict[str, Any] = {"units": units(rows), "errors": [], "held_out": []}
    print("(a) bandwidth in half precision over that in int8, were message_size elements | bytes")
    for line in result["units"]:
        print(f"    {line['system']:20} {line['group']} devices  {line['half_over_int8_if_elements']:.2f} | "
              f"{line['half_over_int8_if_bytes']:.2f}")  # fmt: skip
    print("(b) error of the shipped constants: n, mean, median, worst, share inside the interval")
    for system in SYSTEMS:
        groups: dict[str, list[Row]] = {"NCCL, all": [r for r in nccl if r.system == system]}
        for kind in KINDS.values():
            groups[f"NCCL {kind}"] = [r for r in nccl if r.system == system and r.kind == kind]
        for size in (2, 4, 8):
            groups[f"NCCL, {size} devices"] = [r for r in nccl if r.system == system and r.group == size]
        groups["frameworks' all_reduce"] = [r for r in rows if r.system == system and r.source != "NCCL"]
        for name, chosen in groups.items():
            line = {"system": system, "what": name, **errors(chosen)}
            result["errors"].append(line)
            print(f"    {system:20} {name:24} {line['n']:5} {line['mean']:6.1%} {line['median']:6.1%} "
                  f"{line['worst']:7.1%} {line['inside']:6.1%}")  # fmt: skip
    print("(c) held out: start, hop, share of fabric, pair, shared link from the others; error on it: mean, median")
    for system in SYSTEMS:
        constants = without(rows, system)
        own = errors([r for r in nccl if r.system == system], constants)
        values = {name: getattr(constants, name).value for name in ("start_s", "hop_s", "fabric", "pair", "shared")}
        result["held_out"].append({"system": system, **values, **own})
        print(f"    {system:20} {values['start_s'] * 1e6:.1f} us {values['hop_s'] * 1e6:.2f} us {values['fabric']:.2f} "
              f"{values['pair']:.2f} {values['shared']:.2f}   {own['mean']:.1%} {own['median']:.1%}")  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
