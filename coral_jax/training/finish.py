"""What a finished training leaves: the edit, sheet.png, summary.json."""

import statistics
import sys
import time
from pathlib import Path

from coral_jax.artifact import Edit, save_edit
from coral_jax.figures import png, training_sheet
from coral_jax.latents import w_plus_of_seeds
from coral_jax.metrics import LayerShare, area_weighted_layer
from coral_jax.runtime.files import write_bytes, write_json
from coral_jax.runtime.versions import versions
from coral_jax.training.logs import read_metrics

FACES_ONE_BY_ONE = 40  # that the summary's truth is measured on, where a method takes its time for each face


def write_outputs(workdir: Path, edit: Edit, seeds: list[int], timing: dict, begun: float) -> dict:
    """Write edit/, sheet.png of the seeds' faces and, last of all, summary.json, which it returns.

    `timing` has seconds_compile and resumed_from; `begun` is the start on the monotonic clock, later by the time of pauses.
    """
    save_edit(workdir / "edit", edit)
    w_plus = w_plus_of_seeds(edit.domain.generator, seeds, edit.settings.truncation)
    original, edited, masks = edit.apply(w_plus)
    shares = edit.shares(w_plus, [mask.mean() for mask in masks])
    if masks and not any(share.area for share in shares):
        print(f"warning: no mask reaches tau {edit.tau}, so the edit changes nothing; train longer, with a lower "
              "--config.lambda_area, or lower --config.tau", file=sys.stderr)  # fmt: skip
    tau = f"tau {edit.tau:g}, " if masks else ""
    subtitle = f"{edit.settings.method} on {edit.domain.name}, {edit.settings.steps} steps, {tau}seed {edit.seed}"
    sheet = training_sheet(edit.prompt, subtitle, original, edited, masks, shares)
    write_bytes(workdir / "sheet.png", png(sheet))
    summary = _summary(workdir, edit, shares, timing)
    truth = _truth(edit)
    if truth is not None:
        summary["truth"] = truth
    summary["seconds_total"] = time.monotonic() - begun
    write_json(workdir / "summary.json", summary)
    print(f"{workdir / 'sheet.png'} shows the edit, {workdir / 'edit'} holds it "
          f"({summary['seconds_total']:.0f} s, {timing['seconds_compile']:.0f} s of them compiling)",
          file=sys.stderr)  # fmt: skip
    return summary


def _summary(workdir: Path, edit: Edit, shares: list[LayerShare], timing: dict) -> dict:
    rows = read_metrics(workdir / "metrics.jsonl")
    return {
        "prompt": edit.prompt,
        "method": edit.settings.method,
        "domain": edit.domain.name,
        "domain_fingerprint": edit.domain.fingerprint,
        "seed": edit.seed,
        "batch_size": edit.settings.batch_size,
        "steps": edit.settings.steps,
        "tau": edit.tau,
        **timing,
        "seconds_per_step": statistics.median(row["seconds_per_step"] for row in rows),
        # Mean over the last interval of the log: one step's three faces say little.
        "losses": {name.removeprefix("loss/"): rows[-1][name] for name in rows[-1] if name.startswith("loss/")},
        "layers": [share._asdict() for share in shares],
        "area_weighted_layer": area_weighted_layer(shares),
        "versions": versions(),
    }


def _truth(edit: Edit) -> dict | None:
    """The edit measured against what its domain knows of the truth, where that takes seconds."""
    truth = edit.domain.truth
    count = 0 if truth is None else truth.FACES_AFTER_TRAINING
    if edit.method.per_face:  # each face takes seconds
        count = min(count, FACES_ONE_BY_ONE)
    return truth.measure(edit.domain, edit.prompt, edit.apply, count) if count else None
