"""Truth metrics: how near an edit comes to the ideal one, which the renderer knows.

The *true region* of a face is where its drawing with the attribute set differs from its drawing, dilated by 3 pixels.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coral_jax.domains import Domain
from coral_jax.latents import w_plus_of_z
from coral_jax.metrics import likeness
from coral_jax.models.classifier import Classifier
from coral_jax.models.identity import Identity
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.numerics import key_of, pinned
from coral_jax.toons.captions import parse
from coral_jax.toons.faces import (
    ATTRIBUTES,
    GROUPS,
    PLAIN,
    Z_DIM,
    Face,
    can_have,
    faces_from_z,
    has,
    with_attribute,
    without_attribute,
)
from coral_jax.toons.renderer import render

HELD_OUT_SEED = 20230309  # never a training seed
FACES_AFTER_TRAINING = 200  # that a training's summary measures
SELECTION_SEED = 20230310  # of faces to choose settings on, so that reported figures are of faces that chose nothing
_DILATION = 3
_VISIBLE = 0.02  # of a range of 2: two and a half grey levels


class HeldOut(NamedTuple):
    """Faces without the attributes asked for: latents [N, Z_DIM] and the generator's codes of them [N, n_latent, w_dim],
    true regions [N, h, w, 1], the attributes' names.

    `change` [N, h, w, 3] is what the ideal edit adds to each face's drawing.
    """

    z: Array
    w_plus: Array
    region: Array
    attributes: list[str]
    change: Array

    def at(self, rows: np.ndarray) -> "HeldOut":
        """Some of the faces."""
        return HeldOut(self.z[rows], self.w_plus[rows], self.region[rows], self.attributes, self.change[rows])


class Judged(NamedTuple):
    """What is known of each edited face: one number a face, [N] each, of which the metrics are sums and ratios."""

    hits: dict[str, np.ndarray]  # by attribute asked for: whether the classifier now sees it
    change: np.ndarray  # the absolute change of all pixels, summed
    outside: np.ndarray  # that part of it that falls outside the true region
    drifted: np.ndarray  # how many other attributes changed
    others: np.ndarray  # how many other attributes the face has
    missed: np.ndarray  # the absolute difference from the ideal change, summed
    ideal: np.ndarray  # the absolute ideal change, summed

    @property
    def succeeded(self) -> np.ndarray:
        """Whether the face has all that was asked for."""
        return np.all(list(self.hits.values()), axis=0)


@pinned()
def held_out(domain: Domain, prompt: str, count: int = 200, seed: int = HELD_OUT_SEED) -> HeldOut | None:
    """`count` faces that have none of the attributes that the prompt names; None if the prompt is not of the grammar."""
    names = parse(prompt)
    return None if names is None else _chosen(domain, names, _ideal, "lack", count, seed)


def _chosen(domain: Domain, names: list[str], ideal_of: Callable, verb: str, count: int, seed: int) -> HeldOut:
    """`count` faces that `ideal_of`, of the names and a batch of faces, says are usable, with what it makes of them."""
    z, faces = _faces(key_of(seed), count * 8)
    usable, *drawn = jax.device_get((*ideal_of(tuple(names), faces), z, faces))
    rows = np.flatnonzero(usable)[:count]
    if len(rows) < count:
        raise ValueError(f"only {len(rows)} of the {count} faces wanted {verb} all of {names}; ask for fewer attributes")
    ideal, z, before = jax.tree.map(lambda values: values[rows], drawn)
    region, change = _true_change(before, ideal)
    return HeldOut(z, np.asarray(w_plus_of_z(domain.generator, z)), region, names, change)


# Compiled as wholes: one by one, these small operations take longer to compile than all of them together.
@functools.partial(jax.jit, static_argnums=1)
def _faces(key: Array, count: int) -> tuple[Array, Face]:
    """z [count, Z_DIM] ~ N(0, I), and their faces."""
    z = jax.random.normal(key, (count, Z_DIM))
    return z, faces_from_z(z)


@functools.partial(jax.jit, static_argnums=0)
def _ideal(names: tuple[str, ...], faces: Face) -> tuple[Array, Face]:
    """Which faces lack and could have every attribute, and the faces with every attribute set."""
    usable = jnp.all(jnp.stack([~has(faces, name) & can_have(faces, name) for name in names]), axis=0)
    return usable, functools.reduce(with_attribute, names, faces)


@functools.partial(jax.jit, static_argnums=0)
def _plain(names: tuple[str, ...], faces: Face) -> tuple[Array, Face]:
    """Which faces have every attribute, and the faces without them."""
    usable = jnp.all(jnp.stack([has(faces, name) for name in names]), axis=0)
    return usable, functools.reduce(without_attribute, names, faces)


@jax.jit
def _true_change(before: Face, after: Face) -> tuple[Array, Array]:
    """How the drawings of two batches differ: where, dilated by 3 px, 0 or 1 [B, h, w, 1]; by how much [B, h, w, 3]."""
    both = jax.tree.map(lambda *faces: jnp.concatenate(faces), before, after)
    drawn_before, drawn_after = jnp.split(render(both)[0], 2)
    change = drawn_after - drawn_before
    visible = (jnp.max(jnp.abs(change), axis=-1, keepdims=True) > _VISIBLE).astype(jnp.float32)
    window = 2 * _DILATION + 1
    region = jax.lax.reduce_window(visible, 0.0, jax.lax.max, (1, window, window, 1), (1,) * 4, "SAME")
    return region, change


@jit
def _logits(classifier: Classifier, images: Array) -> dict[str, Array]:
    return classifier(images)


def _answers(classifier: Classifier, images: Array) -> dict[str, np.ndarray]:
    return {question: np.argmax(v, -1) for question, v in jax.device_get(_logits(classifier, images)).items()}


def judges(domain: Domain) -> Classifier:
    """The network that `judge` asks."""
    return domain.classifier()


def judge(classifier: Classifier, asked: HeldOut, original: Array, edited: Array) -> dict[str, np.ndarray]:
    """Numbers [N] of each of the held-out faces, of which metrics are ratios, from its images [N, h, w, 3] before and after."""
    judged = _judged(classifier, asked, original, edited)
    names = ("change", "outside", "drifted", "others", "missed", "ideal")
    return {"succeeded": judged.succeeded} | {name: getattr(judged, name) for name in names}


def _judged(classifier: Classifier, asked: HeldOut, original: Array, edited: Array) -> Judged:
    before, after = _answers(classifier, original), _answers(classifier, edited)
    hits = {}
    for name in asked.attributes:
        group, values = ATTRIBUTES[name]
        hits[name] = np.isin(after[group], [GROUPS[group].index(v) for v in values])
    edited_groups = {ATTRIBUTES[name][0] for name in asked.attributes}
    groups = [group for group in GROUPS if group not in edited_groups]
    counted = {group: np.ones(len(original), bool) for group in groups}
    if "hair_colour" in groups:  # bald heads have no hair colour to change
        counted["hair_colour"] = (before["hair_style"] != 0) & (after["hair_style"] != 0)
    difference = np.asarray(edited) - np.asarray(original)
    change = np.abs(difference)
    pixels = (1, 2, 3)
    return Judged(
        hits=hits,
        change=change.sum(axis=pixels),
        outside=(change * (1 - np.asarray(asked.region))).sum(axis=pixels),
        drifted=np.sum([counted[group] & (before[group] != after[group]) for group in groups], axis=0),
        others=np.sum([counted[group] for group in groups], axis=0),
        missed=np.abs(difference - np.asarray(asked.change)).sum(axis=pixels),
        ideal=np.abs(np.asarray(asked.change)).sum(axis=pixels),
    )


def score(
    classifier: Classifier, identity: Identity, asked: HeldOut, original: Array, edited: Array
) -> dict[str, float | dict[str, float]]:
    """The metrics of edited images [N, h, w, 3] of the held-out faces.

    success: share of faces that the classifier gives every attribute asked for (and each one's own share);
    leak: share of the absolute pixel change that falls outside the true regions; identity: mean cosine of embeddings;
    drift: share of the other attributes whose answer the edit changed; distance: the absolute difference from the ideal
    change, relative to that change (0 is the ideal edit, 1 is as far from it as no edit).
    """
    judged = _judged(classifier, asked, original, edited)
    return {
        "success": float(judged.succeeded.mean()),
        "leak": float(judged.outside.sum() / max(judged.change.sum(), 1e-6)),
        "identity": float(likeness(identity, original, edited).mean()),
        "drift": float(judged.drifted.sum() / judged.others.sum()),
        "distance": float(judged.missed.sum() / judged.ideal.sum()),
        "success_of": {name: float(hit.mean()) for name, hit in judged.hits.items()},
        "faces": len(original),
    }


def measure(
    domain: Domain, prompt: str, edit: Callable[[Array], tuple], count: int = 200, seed: int = HELD_OUT_SEED
) -> dict | None:
    """Metrics of `edit` (w_plus -> original, edited, ...) on held-out faces; None for a prompt whose truth is not known."""
    asked = held_out(domain, prompt, count, seed)
    if asked is None:
        return None
    original, edited, *_ = edit(asked.w_plus)
    return score(judges(domain), domain.identity, asked, original, edited)


@pinned()
def measure_removal(
    domain: Domain, prompt: str, edit: Callable[[Array], tuple], count: int = 48, seed: int = HELD_OUT_SEED
) -> dict | None:
    """Metrics of `edit`, which should take an attribute away, on held-out faces that have it.

    As `score` has them, against the ideal removal (a neutral expression, straight hair of the same length, no makeup), but
    that success is called removed and counts faces that lose the attribute; `now` has the classifier's answers afterwards, as
    shares.  None for a prompt that is not one attribute with a plain opposite (`faces.PLAIN`).
    """
    names = parse(prompt)
    if names is None or len(names) != 1 or names[0] not in PLAIN:
        return None
    asked = _chosen(domain, names, _plain, "have", count, seed)
    original, edited, *_ = edit(asked.w_plus)
    classifier, group = judges(domain), ATTRIBUTES[names[0]][0]
    found = score(classifier, domain.identity, asked, original, edited)
    answers = _answers(classifier, edited)[group]
    now = {value: float(np.mean(answers == number)) for number, value in enumerate(GROUPS[group])}
    kept = ("leak", "identity", "drift", "distance")
    return {"removed": 1 - found["success"], **{name: found[name] for name in kept}, "now": now, "faces": count}
