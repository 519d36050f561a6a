"""Tries settings of one method on several prompts and tabulates the truth metrics, on faces that no table reports.

    python -m benchmarks.sweep --method=attention_mapper --grid="lambda_l2=1e-4,3e-4;lambda_area=8e-5,3e-4" --at=180,360

Every combination of the grid is trained from the domain's settings, in one compiled program, and measured after each of
the steps --at.  Rows are added to --out as they come (one JSON object a line); those already there are not run again.
"""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
from absl import flags

from benchmarks import PROMPTS, alone
from coral_jax import commands
from coral_jax.artifact import Edit
from coral_jax.config import make, resolve
from coral_jax.domains import Domain, load_domain
from coral_jax.latents import parse_seeds
from coral_jax.runtime.numerics import key_of
from coral_jax.training.loop import seen_by_losses, with_inputs

_METHOD = flags.DEFINE_string("method", "attention_mapper", "method to tune")
_DOMAIN = flags.DEFINE_string("domain", "toons", "domain to tune in: one whose truth is known")
_PROMPTS = flags.DEFINE_list("prompts", PROMPTS, "prompts to train on")
_GRID = flags.DEFINE_string("grid", "", "fields of the config and their values: lambda_l2=1e-4,3e-4;tau=0.7,0.85")
_AT = flags.DEFINE_list("at", [], "steps after which to measure; the domain's number of steps if not given")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the training")
_FACES = flags.DEFINE_integer("faces", 104, "number of faces to measure on")
_OUT = flags.DEFINE_string("out", "runs/sweep.jsonl", "file of the rows")


def combinations(grid: str) -> list[dict[str, float]]:
    """ "a=1,2;b=3" -> [{a: 1, b: 3}, {a: 2, b: 3}]; ValueError for anything else."""
    values = {}
    for part in filter(None, grid.split(";")):
        name, equals, numbers = part.partition("=")
        if not equals:
            raise ValueError(f"--grid has {part!r}; write FIELD=VALUE,VALUE;FIELD=VALUE")
        values[name.strip()] = [_number(text) for text in numbers.split(",")]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _number(text: str) -> float:
    """A whole number as an int, which fields such as `steps` ask for."""
    number = float(text)
    return int(number) if number.is_integer() else number


def rows(domain: Domain, prompt: str, changes: dict[str, float], at: list[int]) -> list[dict]:
    """Train one combination, and measure it after each of the steps `at`."""
    config = make(prompt, f"method={_METHOD.value},domain={domain.name}", seed=_SEED.value, **changes)
    chosen = resolve(config, domain.settings_of(prompt))
    frozen = seen_by_losses(domain.frozen(prompt), config, domain)
    frozen = with_inputs(frozen, domain, chosen.settings, prompt, parse_seeds(config.sheet_seeds))
    init_key, key = jax.random.split(key_of(_SEED.value))
    state, step = alone.begin(chosen.settings, frozen, init_key), alone.stepper(chosen.settings, frozen, key)
    found = []
    for done in sorted(at or [chosen.settings.steps]):
        for _ in range(int(state.step), done):
            state, metrics = step(state)
        settings = dataclasses.replace(chosen.settings, steps=done)
        trainables = alone.state_of(state).trainables
        edit = Edit(prompt, domain, domain.default_segmenter, settings, _SEED.value, chosen.tau, trainables)
        measured = domain.truth.measure(domain, prompt, edit.apply, _FACES.value, domain.truth.SELECTION_SEED)
        described = {"method": _METHOD.value, "prompt": prompt, "seed": _SEED.value, "steps": done, "tau": chosen.tau}
        described |= {name: round(value, 12) for name, value in dataclasses.asdict(settings).items() if name != "method"}
        losses = {name: float(metrics.get(f"loss/{name}", [0.0])[0]) for name in ("clip", "l2")}
        found.append(described | losses | measured)
    return found


def main() -> None:
    """Run what the file does not have yet, and print each row."""
    domain = load_domain(_DOMAIN.value)
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    at = [int(step) for step in _AT.value]
    for changes in combinations(_GRID.value):
        for prompt in _PROMPTS.value:
            wanted = {"method": _METHOD.value, "prompt": prompt, "seed": _SEED.value} | changes
            if any(wanted.items() <= row.items() and (not at or row["steps"] == max(at)) for row in known):
                continue
            for row in rows(domain, prompt, changes, at):
                with open(out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                shown = " ".join(f"{name} {row[name]:.2f}" for name in ("success", "leak", "identity", "drift", "clip", "l2"))
                print(prompt, changes, row["steps"], shown, flush=True)


if __name__ == "__main__":
    commands.run(main)
