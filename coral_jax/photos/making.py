"""Photos made of pictures: found, aligned, inverted and tuned, each kept as soon as it is done."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.domains import Domain
from coral_jax.figures import png
from coral_jax.models.generator import Generator
from coral_jax.models.prior import prior_of
from coral_jax.photos import invert, tune
from coral_jax.photos.align import Square
from coral_jax.photos.finding import Source, read
from coral_jax.photos.likeness import networks_of
from coral_jax.photos.photo import DESCRIPTION, Photo, load_photo, save_photo
from coral_jax.photos.resume import load_state, save_state
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.files import write_bytes
from coral_jax.runtime.progress import Progress

LIKENESS = 0.5  # of --likeness, where nothing is said
_KEEP_EVERY = 10  # steps
_STATE = "unfinished.safetensors"

Locate = Callable[[np.ndarray, Path], Square]  # where the face lies in a picture of a file


class Effort(NamedTuple):
    """How a picture is inverted, and how the generator is tuned to it."""

    plan: invert.Plan
    tuning: tune.Tuning


def effort_of(generator: Generator, likeness: float) -> Effort:
    """What `likeness`, from 0 (edits work as on generated faces) to 1 (the picture, whatever edits do), means for a generator.

    ValueError for a number out of range.
    """
    if not 0 <= likeness <= 1:
        raise ValueError(f"likeness is {likeness}; give a number from 0 (edits work best) to 1 (most like the picture)")
    looser = 10 ** (1 - 2 * likeness)  # 10 ... 0.1
    whole = generator.size <= 2 * invert.SMALL
    plan = invert.Plan(0, 150, 0.05, 0.02 * looser, 0.2 * looser) if whole else invert.Plan(60, 25, 0.05, 0.02 * looser, 0.2 * looser)
    return Effort(plan, tune.Tuning(round(60 * likeness), 0.002, 2.0))


def make_photos(domain: Domain, sources: Sequence[Source], locate: Locate, likeness: float, batch: int = 1) -> None:
    """Make the photo of each source, `batch` pictures inverted at a time; those that are finished stay as they are.

    A picture without a face, or that is none, ends it with ValueError before anything is inverted.
    """
    if domain.generator.content_rows is not None:
        raise ValueError(f"{domain.name} draws pictures between bars, into which photographs are not fitted; give another domain")
    effort = effort_of(domain.generator, likeness)
    photos = [(source, _begun(domain, source, locate, likeness)) for source in sources]
    waiting = [(source, photo) for source, photo in photos if photo.w_plus is None]
    each = effort.plan.steps + effort.tuning.steps
    with Progress(f"{len(waiting)} photo(s)", 0, len(waiting) * each) as progress:
        for start in range(0, len(waiting), batch):
            _finish_photos(domain, waiting[start : start + batch], effort, _Shown(progress, start * each))
    for source in sources:
        print(f"{source.folder}: ready; type python -m coral_jax.edit --edit=runs/EDIT --photo={source.folder}", file=sys.stderr)


def _begun(domain: Domain, source: Source, locate: Locate, likeness: float) -> Photo:
    """The photo in a source's folder, or a new one, aligned and kept; ValueError where the folder is another photo's."""
    digest = source.sha256
    if (source.folder / DESCRIPTION).is_file():
        photo = load_photo(source.folder)
        there = photo.picture_sha256, photo.domain, photo.domain_fingerprint, photo.likeness
        if there != (digest, domain.name, domain.fingerprint, likeness):
            raise ValueError(
                f"{source.folder} holds {photo.name} for the domain {photo.domain} with --likeness={photo.likeness:g}, made of "
                "another picture, for other weights or with another likeness; give another --out"
            )
        return photo
    picture = read(source)
    square = locate(picture, source.path)
    photo = Photo(source.name, picture, digest, square, domain.name, domain.fingerprint, likeness)
    save_photo(source.folder, photo)
    write_bytes(source.folder / "aligned.png", _png(photo.aligned(domain.generator.size)))
    return photo


class _Shown(NamedTuple):
    progress: Progress
    done: int  # steps before this batch

    def show(self, steps: int, value: jax.Array) -> None:
        self.progress.show(self.done + steps, {"unlike": float(jnp.mean(value))})


def _finish_photos(domain: Domain, batch: list[tuple[Source, Photo]], effort: Effort, shown: _Shown) -> None:
    """Invert and tune a batch of photos, and keep each whole one."""
    generator, networks, prior = domain.generator, networks_of(domain), prior_of(domain.generator)
    images = np.stack([photo.aligned(generator.size) for _, photo in batch]).astype(np.float32) / np.float32(127.5) - 1
    about = {"effort": str(effort), "domain": domain.fingerprint}
    fresh = invert.start(generator, prior, domain.encoder(), images)
    states = [load_state(source.folder / _STATE, fresh.rows([i]), about) for i, (source, _) in enumerate(batch)]
    done = []
    for rows in _at_one_step(states):
        state = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(states[row] for row in rows))

        def after(step: int, state: invert.State, value: jax.Array, rows: list[int] = rows) -> None:
            shown.show(len(rows) * step + len(done) * effort.plan.steps, value)
            if step % _KEEP_EVERY == 0 or step == effort.plan.steps:
                for place, row in enumerate(rows):
                    save_state(batch[row][0].folder / _STATE, state.rows([place]), about)

        state = invert.invert(generator, prior, networks, images[rows], state, effort.plan, after)
        done += zip(rows, np.asarray(invert.codes(state, prior)), strict=True)
    for place, (row, w_plus) in enumerate(done):
        source, photo = batch[row]
        steps = len(batch) * effort.plan.steps + place * effort.tuning.steps
        tuned = _tuned(domain, images[row], w_plus, effort, source, lambda step, value, n=steps: shown.show(n + step, value))
        photo = dataclasses.replace(photo, w_plus=w_plus, tuned=tuned)
        drawn = _draw(photo.generator(generator), jnp.asarray(w_plus)[None])
        write_bytes(source.folder / "inverted.png", png(np.asarray(drawn)[0]))
        save_photo(source.folder, photo)
        for path in source.folder.glob("unfinished*"):
            path.unlink()


def _tuned(
    domain: Domain, image: np.ndarray, w_plus: np.ndarray, effort: Effort, source: Source, show: Callable
) -> dict[str, np.ndarray]:
    """What tuning adds to the generator's weights; nothing for no steps."""
    if not effort.tuning.steps:
        return {}
    path, about = source.folder / f"unfinished_tuning{Path(_STATE).suffix}", {"effort": str(effort), "domain": domain.fingerprint}
    state = load_state(path, tune.start(domain.generator), about)

    def after(step: int, state: tune.State, value: jax.Array) -> None:
        show(step, value)
        if step % _KEEP_EVERY == 0:
            save_state(path, state, about)

    networks, prior = networks_of(domain), prior_of(domain.generator)
    return tune.tune(domain.generator, prior, networks, image, w_plus, state, effort.tuning, after)


def _at_one_step(states: list[invert.State]) -> Iterator[list[int]]:
    """The rows of states that are at the same step, which go on together."""
    steps = [int(state.step[0]) for state in states]
    for step in sorted(set(steps)):
        yield [row for row, other in enumerate(steps) if other == step]


def _png(pixels: np.ndarray) -> bytes:
    return png(pixels.astype(np.float32) / np.float32(127.5) - 1)


_draw = jit(lambda generator, w_plus: generator.synthesis(w_plus))
