"""Learning an edit: the loop around the train step, and what it leaves in the run's folder."""

import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from coral_jax.artifact import Edit
from coral_jax.config import OF_PROMPT, Settings, resolve
from coral_jax.domains import Domain, load_domain, note_unknown_words
from coral_jax.global_directions.relevance import channels_of
from coral_jax.latents import parse_seeds, w_plus_of_seeds
from coral_jax.methods import Method, get_method
from coral_jax.models.generator import Generator
from coral_jax.models.precision import cast_all
from coral_jax.runtime import memory
from coral_jax.runtime.compiling import compile_ahead
from coral_jax.runtime.errors import NonFiniteError
from coral_jax.runtime.numerics import facts, key_of, pinned
from coral_jax.runtime.progress import Progress
from coral_jax.step import Frozen, TrainState, init_state
from coral_jax.training import partition
from coral_jax.training.checkpoints import Checkpoints, bad_weights, newest_of_all
from coral_jax.training.finish import write_outputs
from coral_jax.training.logs import MetricsLog
from coral_jax.training.workdir import claim, finished

Step = Callable[[TrainState], tuple[TrainState, dict]]


class Run(NamedTuple):
    """One prompt's run, and its folder."""

    prompt: str
    folder: Path


class Watch(Protocol):
    """Looks on while a run learns in one process, and may end it."""

    def stops(self, done: int) -> bool:
        """Called when step `done` is under way; may wait.  True: save a checkpoint and end with KeyboardInterrupt."""

    def saved(self, done: int, states: list[TrainState]) -> None:
        """Called when all runs have a checkpoint of step `done`."""


def train(config: ml_collections.ConfigDict, workdir: Path, watch: Watch | None = None) -> dict:
    """Learn the edit that `config` describes, in `workdir`; goes on from its checkpoints, returns summary.json.

    ValueError for mistakes in the config and for a folder of another configuration; NonFiniteError.
    """
    return train_all(config, [Run(config.prompt, workdir)], watch)[0]


@pinned()
def train_all(config: ml_collections.ConfigDict, runs: list[Run], watch: Watch | None = None) -> list[dict]:
    """Learn the edits of several prompts in one program: each folder is left as `train` leaves it, for its prompt.

    Returns each summary.json (nothing in processes other than the first).  Runs that are finished are left alone.
    """
    begun = time.monotonic()
    seeds = parse_seeds(config.sheet_seeds)
    domain = load_domain(config.domain, config.weights_dir)
    chosen = [resolve(config, domain.settings_of(run.prompt)) for run in runs]
    shared = chosen[0].settings
    segmenter = config.segmenter or domain.default_segmenter
    texts = [domain.frozen(run.prompt, segmenter).text for run in runs]
    frozen = domain.frozen(runs[0].prompt, segmenter)
    frozen = cast_all(seen_by_losses(frozen, config, domain), config.dtype)
    init_key, draw_key = jax.random.split(key_of(config.seed))
    fresh = jax.device_get(_init_state(shared, frozen, init_key))  # each prompt starts alike, as it would alone
    left = partition.from_first(lambda: _claim(runs, config, domain), np.zeros(len(runs), np.int32))
    open_runs, own, texts = (list(itertools.compress(each, left)) for each in (runs, chosen, texts))
    if partition.is_first():
        note_unknown_words(domain, [run.prompt for run in open_runs])
    if open_runs:
        frozen = _of_prompts([with_inputs(frozen._replace(text=text), domain, shared, run.prompt, seeds)
                              for run, text in zip(open_runs, texts, strict=True)])  # fmt: skip
        state, timing = _learn(config, _together([one.settings for one in own]), open_runs, frozen, fresh, draw_key, watch)

        def write() -> np.ndarray:
            for run, (settings, tau), last in zip(open_runs, own, partition.unstack(state, len(open_runs)), strict=True):
                trainables = jax.tree.map(jnp.asarray, last.trainables)
                edit = Edit(run.prompt, domain, segmenter, settings, config.seed, tau, trainables)
                write_outputs(run.folder, edit, seeds, timing, begun + timing["seconds_paused"])
            return np.zeros(())

        partition.from_first(write, np.zeros(()))
    return [finished(run.folder) for run in runs] if partition.is_first() else [{} for _ in runs]


def with_inputs(frozen: Frozen, domain: Domain, settings: Settings, prompt: str, seeds: list[int]) -> Frozen:
    """What a step reads for a prompt, with what two methods need: the codes of the seeds' faces, the prompt's channels."""
    method = get_method(settings.method)
    if method.per_face:
        return frozen._replace(faces=jnp.asarray(w_plus_of_seeds(domain.generator, seeds, settings.truncation)))
    return frozen._replace(channels=channels_of(domain, prompt)) if method.editor.from_text else frozen


def _of_prompts(each: list[Frozen]) -> Frozen:
    """What a step of several prompts reads, which have the networks and faces of the first."""
    text, channels = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(one.text, one.channels) for one in each])
    return each[0]._replace(text=text, channels=channels)


def _together(each: list[Settings]) -> Settings:
    """The settings of several prompts, which share all but `config.OF_PROMPT`: of these, every prompt's number, [P]."""
    own = {name: np.array([getattr(settings, name) for settings in each], np.float32) for name in OF_PROMPT}
    return dataclasses.replace(each[0], **own)


def _loss_resolution(config: ml_collections.ConfigDict, domain: Domain, method: Method) -> int | None:
    """The config's, else the domain's, or what the method needs where that is more; None for the whole image."""
    if config.loss_resolution is not None or domain.loss_resolution is None:
        return config.loss_resolution
    return max(domain.loss_resolution, _least_resolution(domain.generator, method))


def seen_by_losses(frozen: Frozen, config: ml_collections.ConfigDict, domain: Domain) -> Frozen:
    """The domain's networks with a generator that draws what the losses of config's run see."""
    method = get_method(config.method)
    resolution = _loss_resolution(config, domain, method)
    return frozen if resolution is None else frozen._replace(generator=proxy(frozen.generator, method, resolution))


def proxy(generator: Generator, method: Method, resolution: int) -> Generator:
    """The generator up to `resolution` px, whose image the losses see instead, as StyleMC's do.

    ValueError where that image lacks a layer that the method edits: it would not be learned.
    """
    least = _least_resolution(generator, method)
    last = generator.layers[method.layers(generator)[-1] - 1].resolution
    if resolution >= least or (resolution >= last and resolution not in generator.sizes):  # `lower` says what it lacks
        lower = generator.lower(resolution)
        lower.uncut = len(generator.layers)
        return lower
    raise ValueError(
        f"loss_resolution is {resolution}, and what {method.name} edits here needs {least} px; give at least {least}, or "
        "leave it out"
    )


def _least_resolution(generator: Generator, method: Method) -> int:
    """Of the smallest image that has all layers which the method edits."""
    last = generator.layers[method.layers(generator)[-1] - 1].resolution
    return next(size for size in generator.sizes if size >= last)


def _claim(runs: list[Run], config: ml_collections.ConfigDict, domain: Domain) -> np.ndarray:
    """Claims every run's folder: whether it is yet to be trained, for each."""
    for run in runs:
        claim(run.folder, record_of(config, domain, run.prompt))
    done = [finished(run.folder) is not None for run in runs]
    for run, is_done in zip(runs, done, strict=True):
        if is_done:
            print(f"{run.folder} holds this run, finished; its figure is {run.folder / 'sheet.png'}", file=sys.stderr)
    return np.array([not is_done for is_done in done], np.int32)


def _learn(
    config: ml_collections.ConfigDict,
    settings: Settings,
    runs: list[Run],
    frozen: Frozen,
    fresh: TrainState,
    key: jax.Array,
    watch: Watch | None,
) -> tuple[TrainState, dict]:
    """Train the runs together: their last state, stacked, and what the summaries say of it."""
    alone = get_method(config.method).per_face  # each device would hold the deltas of all faces
    mesh = partition.make_mesh(len(runs), 1 if alone else settings.batch_size)
    with ExitStack() as files:
        checkpoints = []  # of the first process

        def newest() -> TrainState:
            checkpoints.extend(files.enter_context(Checkpoints(run.folder / "checkpoints")) for run in runs)
            return partition.stack(newest_of_all(checkpoints, fresh))

        state = partition.from_first(newest, partition.stack([fresh] * len(runs)))
        start = int(state.step)
        if partition.is_first():
            place = runs[0].folder if len(runs) == 1 else f"{len(runs)} folders in {runs[0].folder.parent}"
            print(f"{'going on from step ' + str(start) if start else 'starting'} in {place}, on {mesh.size} of "
                  f"{jax.device_count()} device(s); compiling", file=sys.stderr)  # fmt: skip
        state = partition.place(state, mesh, partition.STATE)
        frozen = partition.place(frozen, mesh, partition.FROZEN)
        key = partition.place_key(key, mesh)
        compiling = time.monotonic()
        placed = partition.place(settings, mesh, partition.SETTINGS)
        step = compile_ahead(partition.make_step(mesh), state, frozen, key, placed)
        timing = {
            "resumed_from": start,
            "seconds_compile": time.monotonic() - compiling,
            "prompts_together": len(runs),
            "devices": mesh.size,
        }
        logs = [files.enter_context(MetricsLog(run.folder, start)) for run in runs if partition.is_first()]
        files.enter_context(memory.tuned_for(step))
        with jax.transfer_guard("disallow"):  # a step waits for nothing from the host
            state, timing["seconds_paused"] = _loop(
                lambda s: step(s, frozen, key, placed), state, config, settings.steps, runs, checkpoints, logs, watch
            )
        return partition.fetch(state), timing


def _loop(
    step: Step,
    state: TrainState,
    config: ml_collections.ConfigDict,
    steps: int,
    runs: list[Run],
    checkpoints: list[Checkpoints],
    logs: list[MetricsLog],
    watch: Watch | None,
) -> tuple[TrainState, float]:
    """Train from the state's step to `steps`: the state, and the seconds that the watch made it wait.

    Metrics are fetched after the next step is under way.
    """
    start = kept = int(state.step)
    several = len(runs) > 1
    label = f"{len(runs)} prompts" if several else runs[0].prompt
    progress = Progress(f"{label}, {config.method}", start, steps) if partition.is_first() else None
    pending, ready = [], None
    clock, paused = time.monotonic(), 0.0

    def report(done: int, metrics: list[dict]) -> None:
        nonlocal clock
        metrics = partition.fetch(metrics)
        for index, run in enumerate(runs):
            own = [{name: values[index] for name, values in row.items()} for row in metrics]
            check_finite(own, done - len(metrics) + 1, kept, run.prompt if several else None)
        row = jax.tree.map(lambda *values: sum(values) / len(values), *metrics)
        now = time.monotonic()
        seconds = (now - clock) / len(metrics)
        for index, log in enumerate(logs):
            log.write(done, {name: values[index] for name, values in row.items()} | {"seconds_per_step": seconds})
        clock = now
        if progress:
            terms = {name: row[f"loss/{name}"].mean() for name in ("total", "clip")}
            progress.show(done, terms | ({"area": row["area"].mean()} if "area" in row else {}))

    for done in range(start + 1, steps + 1):
        state, metrics = step(state)
        pending.append(metrics)
        if ready is not None:
            report(*ready)
            ready = None
        asked = time.monotonic()
        stopping = watch is not None and watch.stops(done)
        waited = time.monotonic() - asked
        clock, paused = clock + waited, paused + waited
        saving = stopping or done == steps or done % config.checkpoint_every == 0
        if saving or done % config.log_every == 0:
            pending, ready = [], (done, pending)
        if saving:
            report(*ready)
            states = partition.unstack(partition.fetch(state), len(runs))
            for run, own in zip(runs, states, strict=True):
                if bad := bad_weights(own):
                    prompt = run.prompt if several else None
                    raise NonFiniteError(f"{_of(prompt)}{bad[0]} is not finite after step {done}; {_remedy(kept, prompt)}")
            for own, writer in zip(states, checkpoints, strict=False):  # there are none in other processes
                writer.save(done, own)
            if watch is not None:
                with jax.transfer_guard("allow"):
                    watch.saved(done, states)
            if stopping and done < steps:
                raise KeyboardInterrupt
            kept, ready, clock = done, None, time.monotonic()
    return state, paused


def check_finite(metrics: list[dict], first: int, kept: int, prompt: str | None = None) -> None:
    """NonFiniteError if a loss of steps first, first + 1, ... is NaN or infinite: names the term and the step."""
    for step, values in enumerate(metrics, start=first):
        terms = sorted(values, key=lambda name: name == "loss/total")  # the total is never the cause
        for name in terms:
            if name.startswith("loss/") and not math.isfinite(values[name]):
                term = name.removeprefix("loss/")
                reason = f"the loss term {term} is {values[name]} at step {step}"
                raise NonFiniteError(f"{_of(prompt)}{reason}; {_remedy(kept, prompt)}")


def _of(prompt: str | None) -> str:
    return f"prompt {prompt!r}: " if prompt else ""


def _remedy(kept: int, prompt: str | None) -> str:
    last = f"the checkpoint of step {kept} is the last good one; " if kept else ""
    without = "leave this prompt out, and the others go on, or " if prompt else ""
    return f"{last}{without}try a lower --config.learning_rate in another --workdir"


def _init_state(settings: object, frozen: Frozen, key: jax.Array) -> TrainState:
    return jax.jit(init_state)(settings, frozen, key)


def record_of(config: ml_collections.ConfigDict, domain: Domain, prompt: str | None = None) -> dict:
    """All that decides the results of config's run, as it was decided; where weights lie, what is trained along
    and what is differentiated at once do not.  prompt: where it is not the config's own."""
    prompt = config.prompt if prompt is None else prompt
    chosen = resolve(config, domain.settings_of(prompt))
    record = {name: value for name, value in config.to_dict().items() if name not in ("weights_dir", "prompts")}
    record |= dataclasses.asdict(chosen.settings) | {"tau": chosen.tau, "prompt": prompt}
    del record["microbatch_size"]
    record["loss_resolution"] = _loss_resolution(config, domain, get_method(config.method))
    segmenter = config.segmenter or domain.default_segmenter
    return record | {"segmenter": segmenter, "domain_fingerprint": domain.fingerprint} | facts()
