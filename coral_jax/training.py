"""Learning an edit: the loop around the train step, and what it leaves in the run's folder."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from coral_jax.artifact import Edit
from coral_jax.checkpoints import Checkpoints, bad_weights
from coral_jax.commands import NonFiniteError
from coral_jax.config import RunSettings, resolve
from coral_jax.domains import load_domain
from coral_jax.given import given
from coral_jax.latents import parse_seeds
from coral_jax.logs import MetricsLog, Progress
from coral_jax.methods import get_method
from coral_jax.models.precision import cast_all
from coral_jax.outputs import write_outputs
from coral_jax.step import Frozen, TrainState, init_state, jit_train_step
from coral_jax.workdir import claim, finished

Step = Callable[[TrainState], tuple[TrainState, dict]]


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict:
    """Learn the edit that `config` describes, in `workdir`; goes on from its checkpoints, returns summary.json.

    ValueError for mistakes in the config and for a folder of another configuration; NonFiniteError.
    """
    begun = time.monotonic()
    seeds = parse_seeds(config.sheet_seeds)
    get_method(config.method)
    domain = load_domain(config.domain, config.weights_dir)
    chosen = resolve(config, domain.settings)
    segmenter = config.segmenter or domain.default_segmenter
    frozen = cast_all(domain.frozen(config.prompt, segmenter), config.dtype)
    frozen = frozen._replace(given=given(chosen.step, domain, config.prompt, seeds))
    init_key, key = jax.random.split(jax.random.key(config.seed))
    state = _init_state(chosen.step, frozen, init_key)
    claim(workdir, _record(config, chosen) | {"segmenter": segmenter, "domain_fingerprint": domain.fingerprint})
    if summary := finished(workdir):
        print(f"{workdir} holds this run, finished; its figure is {workdir / 'sheet.png'}", file=sys.stderr)
        return summary
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = checkpoints.restore(state) or state
        start = int(state.step)
        print(f"{'going on from step ' + str(start) if start else 'starting'} in {workdir}; compiling", file=sys.stderr)
        compiling = time.monotonic()
        step = jit_train_step.lower(state, frozen, key, chosen.step).compile()
        seconds_compile = time.monotonic() - compiling
        with MetricsLog(workdir, start) as log:
            state = _loop(lambda s: step(s, frozen, key, chosen.step), state, config, chosen.steps, checkpoints, log)
    edit = Edit(config.prompt, domain, segmenter, chosen.step, chosen.steps, config.seed, chosen.tau, state.trainables)
    timing = {"resumed_from": start, "seconds_compile": seconds_compile}
    return write_outputs(workdir, edit, seeds, timing, begun)


def _loop(
    step: Step,
    state: TrainState,
    config: ml_collections.ConfigDict,
    steps: int,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> TrainState:
    """Train from the state's step to `steps`.  Metrics are fetched after the next step is under way."""
    start = kept = int(state.step)
    progress = Progress(f"{config.prompt}, {config.method}", start, steps)
    pending, ready = [], None
    clock = time.monotonic()

    def report(done: int, metrics: list[dict]) -> None:
        nonlocal clock
        metrics = jax.device_get(metrics)
        check_finite(metrics, done - len(metrics) + 1, kept)
        row = jax.tree.map(lambda *values: sum(values) / len(values), *metrics)
        now = time.monotonic()
        log.write(done, row | {"seconds_per_step": (now - clock) / len(metrics)})
        clock = now
        area = {"area": row["area"].mean()} if "area" in row else {}
        progress.show(done, {name: row[f"loss/{name}"] for name in ("total", "clip")} | area)

    for done in range(start + 1, steps + 1):
        state, metrics = step(state)
        pending.append(metrics)
        if ready is not None:
            report(*ready)
            ready = None
        saving = done == steps or done % config.checkpoint_every == 0
        if saving or done % config.log_every == 0:
            pending, ready = [], (done, pending)
        if saving:
            report(*ready)
            if bad := bad_weights(state):
                raise NonFiniteError(f"{bad[0]} is not finite after step {done}; {_remedy(kept)}")
            checkpoints.save(done, state)
            kept, ready, clock = done, None, time.monotonic()
    return state


def check_finite(metrics: list[dict], first: int, kept: int) -> None:
    """NonFiniteError if a loss of steps first, first + 1, ... is NaN or infinite: names the term and the step."""
    for step, values in enumerate(metrics, start=first):
        terms = sorted(values, key=lambda name: name == "loss/total")  # the total is never the cause
        for name in terms:
            if name.startswith("loss/") and not math.isfinite(values[name]):
                term = name.removeprefix("loss/")
                raise NonFiniteError(f"the loss term {term} is {values[name]} at step {step}; {_remedy(kept)}")


def _remedy(kept: int) -> str:
    last = f"the checkpoint of step {kept} is the last good one; " if kept else ""
    return last + "try a lower --config.learning_rate in another --workdir"


def _init_state(settings: object, frozen: Frozen, key: jax.Array) -> TrainState:
    return jax.jit(init_state)(settings, frozen, key)


def _record(config: ml_collections.ConfigDict, chosen: RunSettings) -> dict:
    """All that decides a run's results, as it was decided; where the weights lie does not."""
    record = {name: value for name, value in config.to_dict().items() if name != "weights_dir"}
    return record | dataclasses.asdict(chosen.step) | {"steps": chosen.steps, "tau": chosen.tau}
