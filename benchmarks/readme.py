"""Puts the stored result of the demonstration into README.md: `python benchmarks/readme.py`. A test keeps it there.

The result itself comes from `gnomon examine sentence-embedding --json > benchmarks/results/demo.json`.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "demo.json"
START, END = "<!-- result: printed from benchmarks/results/demo.json -->", "<!-- end of result -->"


def block() -> str:
    """The part of README.md between its two markers, both included."""
    result = json.loads(RESULT.read_text("utf-8"))
    environment, p50 = result["environment"], result["latency"]["p50"]
    head = (
        f"`{result['task']}` on {environment['machine']['cpu']}, {environment['threads']} thread, "
        f"torch {environment['packages']['torch']}, {environment['started_at'][:10]}: "
        f"median {1e3 * p50['value']:.1f} ms [{1e3 * p50['low']:.1f}, {1e3 * p50['high']:.1f}]."
    )
    rows = [
        "| recipe | speed-up over eager fp32 | over ONNX Runtime fp32 | mean cosine | verdict |",
        "|" + " --- |" * 5,
    ]
    for change in result["changes"]:
        against = change["against"].get("onnx-fp32")
        cosine = f"{change['distance']['mean_cosine']:.4f}" if change["distance"] else "-"
        rows.append(
            f"| {change['recipe']} | {_ratio(change['speedup'])} | {_ratio(against)} | {cosine} | {change['verdict']} |"
        )
    return "\n".join([START, "", head, "", *rows, "", END])


def _ratio(test: dict | None) -> str:
    if test is None:
        return "-"
    speedup = test["speedup"]
    return f"{speedup['value']:.2f}x [{speedup['low']:.2f}, {speedup['high']:.2f}]"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    readme.write_text(before + block() + after, "utf-8")
    print("wrote the result into README.md")


if __name__ == "__main__":
    main()
