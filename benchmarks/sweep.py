"""Tries settings of one method on several prompts and tabulates the truth metrics, on faces that no table reports.

    python -m benchmarks.sweep --method=attention_mapper --grid="lambda_l2=1e-4,3e-4;lambda_area=8e-5,3e-4" --at=180,360

Every combination of the grid is trained from the domain's settings, in one compiled program, and measured after each of
the steps --at; those that differ in tau or strength alone share a training.  Rows are added to --out as they come (one JSON
object a line); those already there are not run again.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags

from benchmarks import PROMPTS, alone
from coral_jax import commands
from coral_jax.artifact import Edit
from coral_jax.config import make, resolve
from coral_jax.domains import Domain, load_domain
from coral_jax.latents import parse_seeds
from coral_jax.methods import get_method
from coral_jax.runtime.numerics import key_of
from coral_jax.training.loop import seen_by_losses, with_inputs

_OF_USE = ("strength", "tau")  # no training depends on them


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


def trainings(grid: str) -> list[list[dict[str, float]]]:
    """The combinations of a grid, those that one training serves in one list."""
    alike = {}
    for changes in combinations(grid):
        alike.setdefault(tuple(item for item in changes.items() if item[0] not in _OF_USE), []).append(changes)
    return list(alike.values())


def rows(domain: Domain, prompt: str, alike: list[dict[str, float]], at: list[int]) -> Iterator[dict]:
    """Train combinations that one training serves, and measure each of them after each of the steps `at`."""
    configs = [make(prompt, f"method={_METHOD.value},domain={domain.name}", seed=_SEED.value, **changes) for changes in alike]
    every = [resolve(config, domain.settings_of(prompt)) for config in configs]
    trained, config = every[0].settings, configs[0]
    frozen = seen_by_losses(domain.frozen(prompt), config, domain)
    frozen = with_inputs(frozen, domain, trained, prompt, parse_seeds(config.sheet_seeds))
    init_key, key = jax.random.split(key_of(_SEED.value))
    state, step = alone.begin(trained, frozen, init_key), alone.stepper(trained, frozen, key)
    metrics, learned = {}, not get_method(trained.method).per_face  # else applying the edit finds the deltas of its faces
    for done in sorted(at or [trained.steps]):
        for _ in range(int(state.step), done if learned else 0):
            state, metrics = step(state)
        losses = {name: float(metrics.get(f"loss/{name}", [0.0])[0]) for name in ("clip", "l2")}
        trainables = alone.state_of(state).trainables
        for chosen in every:
            settings = dataclasses.replace(chosen.settings, steps=done)
            edit = Edit(prompt, domain, domain.default_segmenter, settings, _SEED.value, chosen.tau, trainables)
            measured = domain.truth.measure(domain, prompt, edit.apply, _FACES.value, domain.truth.SELECTION_SEED)
            described = {"method": _METHOD.value, "prompt": prompt, "seed": _SEED.value, "steps": done, "tau": chosen.tau}
            described |= {name: round(value, 12) for name, value in dataclasses.asdict(settings).items() if name != "method"}
            yield described | losses | measured


def _has(known: list[dict], wanted: dict, at: list[int]) -> bool:
    """Whether there is a row of what is wanted, after the last of the steps `at`."""
    return any(wanted.items() <= row.items() and (not at or row["steps"] == max(at)) for row in known)


def main() -> None:
    """Run what the file does not have yet, and print each row."""
    domain = load_domain(_DOMAIN.value)
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    at = [int(step) for step in _AT.value]
    for alike in trainings(_GRID.value):
        for prompt in _PROMPTS.value:
            wanted = {"method": _METHOD.value, "prompt": prompt, "seed": _SEED.value}
            missing = [changes for changes in alike if not _has(known, wanted | changes, at)]
            if not missing:
                continue
            for row in rows(domain, prompt, missing, at):
                with open(out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                shown = " ".join(f"{name} {row[name]:.2f}" for name in ("success", "leak", "identity", "drift", "clip", "l2"))
                print(prompt, {name: row[name] for name in missing[0]}, row["steps"], shown, flush=True)


if __name__ == "__main__":
    _METHOD = flags.DEFINE_string("method", "attention_mapper", "method to tune")
    _DOMAIN = flags.DEFINE_string("domain", "toons", "domain to tune in: one whose truth is known")
    _PROMPTS = flags.DEFINE_list("prompts", PROMPTS, "prompts to train on")
    _GRID = flags.DEFINE_string("grid", "", "fields of the config and their values: lambda_l2=1e-4,3e-4;tau=0.7,0.85")
    _AT = flags.DEFINE_list("at", [], "steps after which to measure; the domain's number of steps if not given")
    _SEED = flags.DEFINE_integer("seed", 0, "seed of the training")
    _FACES = flags.DEFINE_integer("faces", 104, "number of faces to measure on")
    _OUT = flags.DEFINE_string("out", "runs/sweep.jsonl", "file of the rows")
    commands.run(main)
