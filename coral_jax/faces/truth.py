"""Measuring edits of `faces` by networks that trained nothing here, but for the parser, which labelled the CLIP's faces.

`attributes` has the rules.  The *region* of a prompt is the parser's parts that it is about, dilated by 8 px at 256 px.  Faces
are drawn with the domain's truncation; those are held out which certainly lack what the prompt asks for.  What the judges see
of faces before an edit is kept in the weights folder.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coral_jax import weights
from coral_jax.artifact import BATCH
from coral_jax.domains import Domain
from coral_jax.faces import judges as networks
from coral_jax.faces.attributes import ATTRIBUTES, Measures, answers, drift
from coral_jax.faces.captions import parse
from coral_jax.faces.judges import Judges
from coral_jax.faces.labels import mask, measures_of
from coral_jax.figures import to_pixels
from coral_jax.latents import w_plus_of_seeds
from coral_jax.metrics import estimates, likeness
from coral_jax.models.generator import Generator
from coral_jax.models.ops import resized
from coral_jax.runtime.compiling import jit

HELD_OUT_SEED = 2_000_000  # of the first face; no training draws from these seeds
SELECTION_SEED = 3_000_000  # of faces to choose settings on, so that reported figures are of faces that chose nothing
FACES_AFTER_TRAINING = 0  # that a training's summary measures: each takes a second
MOST_DRAWN = 800  # faces among which those are looked for that lack an attribute
FORMAT = 1  # of what is kept of the faces: another number, and the judges look at them again
_SIZE, _DILATION = 256, 8  # px


class Seen(NamedTuple):
    """What the judges see of N faces: the parser's labels [N, 256, 256] (bytes), measures by name, points [N, 478, 2] at
    256 px, embeddings [N, 256] of unit length."""

    labels: np.ndarray
    measures: Measures
    points: np.ndarray
    embedding: np.ndarray

    def at(self, rows: np.ndarray) -> "Seen":
        """Some of the faces."""
        return jax.tree.map(lambda values: values[rows], self)


class HeldOut(NamedTuple):
    """Faces without the attributes asked for: codes [N, n_latent, w_dim], regions [N, 256, 256, 1], what the judges see."""

    w_plus: np.ndarray
    region: np.ndarray
    attributes: list[str]
    seen: Seen

    def at(self, rows: np.ndarray) -> "HeldOut":
        """Some of the faces."""
        return HeldOut(self.w_plus[rows], self.region[rows], self.attributes, self.seen.at(rows))


def judges(domain: Domain) -> Judges:
    """The networks that judge; ValueError, with the command that gets it, for one that is not there."""
    return _judges(domain.folder.parent)


@functools.cache
def _judges(folder: Path) -> Judges:
    return networks.load(folder)


def look(judging: Judges, images: np.ndarray) -> Seen:
    """What the judges see of images [N, h, w, 3]."""
    labels = networks.parts(judging, images)
    points, blendshapes = networks.landmarks(judging, images)
    small = to_pixels(np.asarray(_shrunk(images)))
    age, male = networks.age_gender(judging, images)
    found = measures_of(small, labels) | blendshapes | {"age": age, "male": male}
    found = {name: np.asarray(values, np.float32) for name, values in found.items()}
    return Seen(labels, found, points, networks.embed(judging, images))


def held_out(domain: Domain, prompt: str, count: int = 100, seed: int = HELD_OUT_SEED) -> HeldOut | None:
    """`count` faces that certainly lack all that the prompt names; None where the prompt names what no rule judges.

    ValueError where too few of 800 faces lack it.
    """
    names = parse(prompt)
    if names is None or not set(names) <= set(ATTRIBUTES):
        return None
    kept = []
    for start in range(seed, seed + MOST_DRAWN, BATCH):
        w_plus, seen = _eight_faces(domain, start)
        lacking = np.all([lacks for _, lacks in answers(seen.measures, names).values()], axis=0)
        rows = np.flatnonzero(lacking & np.isfinite(seen.points).all((1, 2)))
        kept.append((w_plus[rows], seen.at(rows)))
        if sum(len(codes) for codes, _ in kept) >= count:
            break
    w_plus, seen = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *kept)
    if len(w_plus) < count:
        raise ValueError(f"only {len(w_plus)} of {MOST_DRAWN} faces lack {names}; measure fewer, or another prompt")
    return HeldOut(w_plus, region(names, seen.labels), names, seen)


def region(names: list[str], labels: np.ndarray, grown: bool = False) -> np.ndarray:
    """Where the labels [N, h, w] say that faces may change, dilated: bool [N, h, w, 1]; `grown`: of faces after the edit."""
    parts = {part for name in names for part in (ATTRIBUTES[name].grown if grown else ATTRIBUTES[name].region)}
    return np.asarray(_dilated(mask(labels, *parts)))[..., None]


def judge(judging: Judges, asked: HeldOut, original: Array, edited: Array) -> dict[str, np.ndarray]:
    """Numbers [N] of each of the held-out faces, of which metrics are ratios, from its images [N, h, w, 3] before and after."""
    seen = look(judging, np.asarray(edited))
    inside = asked.region | region(asked.attributes, seen.labels, grown=True)
    change = np.asarray(_change(original, edited))
    drifted, others = drift(asked.seen.measures, seen.measures, asked.attributes)
    found = answers(seen.measures, asked.attributes)
    return {
        "succeeded": np.all([has for has, _ in found.values()], axis=0),
        "change": change.sum((1, 2, 3)),
        "outside": (change * ~inside).sum((1, 2, 3)),
        "drifted": drifted,
        "others": others,
        "recognised": np.sum(asked.seen.embedding * seen.embedding, axis=-1),
        **_moved(asked.seen.points, seen.points, inside),
    }


def _moved(before: np.ndarray, after: np.ndarray, inside: np.ndarray) -> dict[str, np.ndarray]:
    """How far the landmarks outside the region moved, in px, summed, and their number: both zero where none was found."""
    column, row = np.clip(np.rint(before), 0, _SIZE - 1).astype(int).transpose(2, 0, 1)
    counted = ~inside[np.arange(len(inside))[:, None], row, column, 0] & np.isfinite(after).all(-1)
    distance = np.linalg.norm(after - before, axis=-1)
    return {"moved": np.where(counted, distance, 0).sum(1), "landmarks": counted.sum(1)}


@jax.jit
def _dilated(where: Array) -> Array:
    """bool [N, h, w], grown by squares of 17 px."""
    window = 2 * _DILATION + 1
    return jax.lax.reduce_window(where, False, jax.lax.bitwise_or, (1, window, window), (1, 1, 1), "SAME")


_shrunk = jax.jit(functools.partial(resized, size=_SIZE))


@jax.jit
def _change(original: Array, edited: Array) -> Array:
    """The absolute change of images [N, h, w, 3], [N, 256, 256, 1]."""
    return _shrunk(jnp.abs(edited - original).sum(-1, keepdims=True))


def measure(
    domain: Domain, prompt: str, edit: Callable[[np.ndarray], tuple], count: int = 100, seed: int = HELD_OUT_SEED
) -> dict[str, float] | None:
    """Metrics of `edit` (w_plus -> original, edited, ...) on held-out faces; None for a prompt that no rule judges."""
    asked = held_out(domain, prompt, count, seed)
    if asked is None:
        return None
    judging, parts = judges(domain), []
    for start in range(0, count, BATCH):
        some = asked.at(np.arange(start, min(start + BATCH, count)))
        original, edited, *_ = edit(some.w_plus)
        parts.append(judge(judging, some, original, edited) | {"identity": likeness(domain.identity, original, edited)})
    faces = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: estimate.value for name, estimate in estimates(faces).items()} | {"faces": count}


def _eight_faces(domain: Domain, seed: int) -> tuple[np.ndarray, Seen]:
    """Codes and what the judges see of the faces of eight seeds; from the disk where they were looked at before."""
    truncation = domain.settings["truncation"]
    name = f"{domain.name}_{domain.generator_fingerprint[:12]}_{truncation:g}_{FORMAT}_{seed}.safetensors"
    file = domain.folder.parent / "judges" / name
    if not file.exists():
        w_plus = w_plus_of_seeds(domain.generator, list(range(seed, seed + BATCH)), truncation)
        seen = look(judges(domain), np.asarray(_draw(domain.generator, w_plus)))
        tensors = {f"measure_{name}": values for name, values in seen.measures.items()}
        tensors |= {"w_plus": w_plus, "labels": seen.labels, "points": seen.points, "embedding": seen.embedding}
        weights.save_tensors(file, tensors, {})
    tensors, _ = weights.load_tensors(file)
    found = {name.removeprefix("measure_"): values for name, values in tensors.items() if name.startswith("measure_")}
    return tensors["w_plus"], Seen(tensors["labels"], found, tensors["points"], tensors["embedding"])


@jit
def _draw(generator: Generator, w_plus: Array) -> Array:
    return generator.synthesis(w_plus)
