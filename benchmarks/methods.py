"""Trains every method on every prompt and tabulates the truth metrics.

    python -m benchmarks.methods --out=runs/methods

A cell whose run is finished is not run again. Writes table.json and table.md into the folder.
"""

import re
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import PROMPTS
from coral_jax import commands
from coral_jax.artifact import write_bytes, write_json
from coral_jax.config import make
from coral_jax.methods import METHODS
from coral_jax.training import train

_PROMPTS = flags.DEFINE_list("prompts", PROMPTS, "prompts to train on")
_METHODS = flags.DEFINE_list("methods", list(METHODS), "methods to compare")
_DOMAIN = flags.DEFINE_string("domain", "toons", "domain; it needs truth metrics")
_OUT = flags.DEFINE_string("out", "runs/methods", "folder of the runs and of the table")
_COLUMNS = ("success", "leak", "identity", "drift")


def row(summary: dict) -> dict:
    """What the table says of one finished run."""
    return {
        "method": summary["method"],
        "prompt": summary["prompt"],
        **{name: summary["truth"][name] for name in _COLUMNS},
        "layer": summary["area_weighted_layer"],
        "seconds": summary["seconds_total"],
    }


def markdown(rows: list[dict]) -> str:
    """A table of all rows, and the mean of every method over its prompts."""
    lines = ["| method | prompt | success | leak | identity | drift | mean layer | seconds |", "|" + "---|" * 8]
    means = []
    for method in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == method]
        mean = {k: float(np.mean([r[k] for r in own if r[k] is not None])) for k in (*_COLUMNS, "layer", "seconds")}
        means.append({"method": method, "prompt": f"**mean of {len(own)}**", **mean})
    for r in [*rows, *means]:
        layer = "–" if r["layer"] is None else f"{r['layer']:.1f}"
        numbers = " | ".join(f"{r[k]:.2f}" for k in _COLUMNS)
        lines.append(f"| {r['method']} | {r['prompt']} | {numbers} | {layer} | {r['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not finished, then write the table."""
    out, rows = Path(_OUT.value), []
    for method in _METHODS.value:
        for prompt in _PROMPTS.value:
            folder = out / method / re.sub(r"\W+", "_", prompt)
            summary = train(make(prompt, f"method={method},domain={_DOMAIN.value}"), folder)
            if "truth" not in summary:
                raise ValueError(f"the truth of {prompt!r} is not known; give prompts of the toons' grammar")
            rows.append(row(summary))
            write_json(out / "table.json", {"rows": rows})
            write_bytes(out / "table.md", markdown(rows).encode())
    print(markdown(rows))


if __name__ == "__main__":
    commands.run(main)
