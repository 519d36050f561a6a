"""Photos made of pictures: found, aligned, inverted and tuned, each kept as soon as it is done."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from coral_jax import weights
from coral_jax.domains import Domain
from coral_jax.figures import png
from coral_jax.models.generator import Generator
from coral_jax.models.prior import prior_of
from coral_jax.photos import invert, tune
from coral_jax.photos.align import Square
from coral_jax.photos.finding import Source
from coral_jax.photos.likeness import imagenet_of, networks_of
from coral_jax.photos.photo import DESCRIPTION, Photo, load_photo, save_photo
from coral_jax.photos.resume import load_state, save_state
from coral_jax.pictures import read_picture
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.files import write_bytes
from coral_jax.runtime.progress import Progress

LIKENESS = 0.5  # of --likeness, where nothing is said
_TUNED = 60  # steps of tuning at a likeness of 1; up to 0.5, there are none
_TUNING_RATE = 5e-4  # at 2e-3, hair of faces gets stripes
_KEEP_SECONDS = 15.0
_INVERTING, _TUNING = "unfinished_codes.safetensors", "unfinished_weights.safetensors"

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
    small, whole = (0, 80) if generator.size <= 2 * invert.SMALL else (60, 40)
    further = max(0.0, 2 * likeness - 1)
    small, whole = round(small * (1 + further)), round(whole * (1 + further))
    tuning = tune.Tuning(round(_TUNED * further), _TUNING_RATE, 2.0)
    return Effort(invert.Plan(small, whole, 0.05, 0.02 * looser, 0.2 * looser), tuning)


def make_photos(
    domain: Domain,
    sources: Sequence[Source],
    locate: Locate,
    likeness: float,
    batch: int = 1,
    weights_dir: str | os.PathLike | None = None,
) -> None:
    """Make the photo of each source, `batch` pictures inverted at a time; those that are finished stay as they are.

    A picture without a face, or that is none, ends it with ValueError before anything is inverted.
    """
    if domain.generator.content_rows is not None:
        raise ValueError(f"{domain.name} draws pictures between bars, which photographs do not have; give another domain")
    effort = effort_of(domain.generator, likeness)
    imagenet = imagenet_of(domain, weights_dir)
    waiting = [source for source in sources if not _begun(domain, source, locate, likeness)]
    if waiting and imagenet is not None and not imagenet.is_file():
        command = "python -m coral_jax.download imagenet" + (f" --weights_dir={weights_dir}" if weights_dir else "")
        print(f"there is no {imagenet}; inversions come nearer with {command}", file=sys.stderr)
    each = effort.plan.steps + effort.tuning.steps
    with Progress(f"{len(waiting)} photo(s)", 0, len(waiting) * each) as progress:
        maker = _Maker(domain, effort, progress, imagenet) if waiting else None
        for start in range(0, len(waiting), batch):
            maker.finish(waiting[start : start + batch])
    for source in sources:
        print(
            f"{source.folder}: ready; type python -m coral_jax.edit --edit=runs/EDIT --photo={source.folder}", file=sys.stderr
        )


def _begun(domain: Domain, source: Source, locate: Locate, likeness: float) -> bool:
    """Whether a source's photo is finished; where it is not there, it is aligned and kept.

    ValueError where the folder is another photo's, or that of another face in the picture.
    """
    digest = source.sha256
    if (source.folder / DESCRIPTION).is_file():
        photo = load_photo(source.folder)
        there = photo.picture_sha256, photo.domain, photo.domain_fingerprint, photo.likeness
        if there != (digest, domain.name, domain.fingerprint, likeness):
            raise ValueError(
                f"{source.folder} holds {photo.name} for the domain {photo.domain} with --likeness={photo.likeness:g}, made of "
                "another picture, for other weights or with another likeness; give another --out"
            )
        if not photo.square.near(locate(photo.picture, source.path)):
            raise ValueError(
                f"{source.folder} holds another face of {source.path}; give --face or --aligned as when it was made, "
                "or another --out"
            )
        return photo.w_plus is not None
    picture = read_picture(source.path)
    photo = Photo(
        source.name, picture, digest, locate(picture, source.path), domain.name, domain.fingerprint, likeness
    )  # fmt: skip
    save_photo(source.folder, photo)
    write_bytes(source.folder / "aligned.png", png(Image.fromarray(photo.aligned(domain.generator.size))))
    return False


class _Maker:
    """Inverts photos that are aligned, a batch at a time."""

    def __init__(self, domain: Domain, effort: Effort, progress: Progress, imagenet: Path | None):
        self.generator, self.encoder = domain.generator, domain.encoder()
        self.networks, self.prior = networks_of(domain, imagenet), prior_of(domain.generator)
        self.effort, self.progress, self.done = effort, progress, 0  # steps
        self.about = {"effort": str(effort), "domain": domain.fingerprint}
        if self.networks.imagenet is not None:
            self.about["imagenet"] = weights.fingerprint(imagenet)

    def finish(self, batch: Sequence[Source]) -> None:
        """Invert and tune the photos of a batch, and keep them."""
        photos = [load_photo(source.folder) for source in batch]
        images = np.stack([photo.aligned(self.generator.size) for photo in photos]).astype(np.float32) / np.float32(127.5) - 1
        for row, w_plus in self._inverted(batch, images).items():
            tuned = self._tuned(batch[row], images[row], w_plus) if self.effort.tuning.steps else {}
            photo = dataclasses.replace(photos[row], w_plus=w_plus, tuned=tuned)
            drawn = _draw(photo.generator(self.generator), jnp.asarray(w_plus)[None])
            write_bytes(batch[row].folder / "inverted.png", png(np.asarray(drawn)[0]))
            save_photo(batch[row].folder, photo)
            for name in (_INVERTING, _TUNING):
                (batch[row].folder / name).unlink(missing_ok=True)

    def _inverted(self, batch: Sequence[Source], images: np.ndarray) -> dict[int, np.ndarray]:
        """w_plus [n_latent, w_dim] of each picture; those that were stopped at one step go on together."""
        found = {}
        fresh = invert.start(self.generator, self.prior, self.encoder, images)
        states = [load_state(source.folder / _INVERTING, fresh.rows([i]), self.about) for i, source in enumerate(batch)]
        steps = [int(state.step[0]) for state in states]
        for step in sorted(set(steps)):
            rows = [row for row, other in enumerate(steps) if other == step]
            state = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(states[row] for row in rows))
            found |= dict(zip(rows, self._together([batch[row] for row in rows], images[rows], state), strict=True))
        return found

    def _together(self, batch: Sequence[Source], images: np.ndarray, state: invert.State) -> np.ndarray:
        """w_plus [B, n_latent, w_dim] of pictures whose inversions are at one step."""
        plan, kept = self.effort.plan, _Timer()

        def after(step: int, state: invert.State, value: jax.Array) -> None:
            self._show(len(batch) * step, value)
            if kept.passed() or step == plan.steps:
                for row, source in enumerate(batch):
                    save_state(source.folder / _INVERTING, state.rows([row]), self.about)

        state = invert.invert(self.generator, self.prior, self.networks, images, state, plan, after)
        self.done += len(batch) * plan.steps
        return np.asarray(invert.codes(state, self.prior))

    def _tuned(self, source: Source, image: np.ndarray, w_plus: np.ndarray) -> dict[str, np.ndarray]:
        """What tuning adds to the generator's weights."""
        state, kept = load_state(source.folder / _TUNING, tune.start(self.generator), self.about), _Timer()

        def after(step: int, state: tune.State, value: jax.Array) -> None:
            self._show(step, value)
            if kept.passed():
                save_state(source.folder / _TUNING, state, self.about)

        tuned = tune.tune(self.generator, self.prior, self.networks, image, w_plus, state, self.effort.tuning, after)
        self.done += self.effort.tuning.steps
        return tuned

    def _show(self, steps: int, value: jax.Array) -> None:
        self.progress.show(self.done + steps, {"unlike": float(jnp.mean(value))})


class _Timer:
    """Whether it is time to keep what was done."""

    def __init__(self):
        self._last = time.monotonic()

    def passed(self) -> bool:
        """Whether 15 seconds have passed since this last said so."""
        now = time.monotonic()
        if now - self._last < _KEEP_SECONDS:
            return False
        self._last = now
        return True


_draw = jit(lambda generator, w_plus: generator.synthesis(w_plus))
