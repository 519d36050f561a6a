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
from coral_jax.losses import cosine
from coral_jax.models.classifier import Classifier
from coral_jax.models.identity import Identity
from coral_jax.toons.captions import parse
from coral_jax.toons.faces import ATTRIBUTES, GROUPS, Z_DIM, Face, can_have, faces_from_z, has, with_attribute
from coral_jax.toons.renderer import render

HELD_OUT_SEED = 20230309  # never a training seed
SELECTION_SEED = 20230310  # of faces to choose settings on, so that reported figures are of faces that chose nothing
_DILATION = 3
_VISIBLE = 0.02  # of a range of 2: two and a half grey levels


class HeldOut(NamedTuple):
    """Faces without the attributes asked for: latents [N, Z_DIM], true regions [N, h, w, 1], the attributes' names."""

    z: Array
    region: Array
    attributes: list[str]


def held_out(prompt: str, count: int = 200, seed: int = HELD_OUT_SEED) -> HeldOut | None:
    """`count` faces that have none of the attributes that the prompt names; None if the prompt is not of the grammar."""
    names = parse(prompt)
    if names is None:
        return None
    z = jax.random.normal(jax.random.key(seed), (count * 8, Z_DIM))
    before, ideal, usable = _ideal(tuple(names), z)
    rows = np.flatnonzero(usable)[:count]
    if len(rows) < count:
        raise ValueError(f"only {len(rows)} of the {count} faces wanted lack all of {names}; ask for fewer attributes")
    before, ideal = jax.tree.map(lambda values: values[rows], (before, ideal))
    return HeldOut(z[rows], true_region(before, ideal), names)


# Compiled as wholes: one by one, these small operations take longer to compile than all of them together.
@functools.partial(jax.jit, static_argnums=0)
def _ideal(names: tuple[str, ...], z: Array) -> tuple[Face, Face, Array]:
    """The faces of z, the same with every attribute set, and which of them lack and could have every attribute."""
    faces = faces_from_z(z)
    usable = jnp.all(jnp.stack([~has(faces, name) & can_have(faces, name) for name in names]), axis=0)
    return faces, functools.reduce(with_attribute, names, faces), usable


@jax.jit
def true_region(before: Face, after: Face) -> Array:
    """Where the drawings of two batches of faces differ, dilated by 3 px: 0 or 1, [B, h, w, 1]."""
    both = jax.tree.map(lambda *faces: jnp.concatenate(faces), before, after)
    drawn_before, drawn_after = jnp.split(render(both)[0], 2)
    change = jnp.max(jnp.abs(drawn_before - drawn_after), axis=-1, keepdims=True) > _VISIBLE
    window = 2 * _DILATION + 1
    return jax.lax.reduce_window(change.astype(jnp.float32), 0.0, jax.lax.max, (1, window, window, 1), (1,) * 4, "SAME")


@jax.jit
def _logits(classifier: Classifier, images: Array) -> dict[str, Array]:
    return classifier(images)


def _answers(classifier: Classifier, images: Array) -> dict[str, np.ndarray]:
    return {question: np.argmax(v, -1) for question, v in _logits(classifier, images).items()}


@jax.jit
def _likeness(identity: Identity, a: Array, b: Array) -> Array:
    return jnp.mean(cosine(identity.embed(a), identity.embed(b)))


def score(
    classifier: Classifier, identity: Identity, asked: HeldOut, original: Array, edited: Array
) -> dict[str, float | dict[str, float]]:
    """The metrics of edited images [N, h, w, 3] of the held-out faces.

    success: share of faces that the classifier gives every attribute asked for (and each one's own share);
    leak: share of the absolute pixel change that falls outside the true regions; identity: mean cosine of embeddings;
    drift: share of the other attributes whose answer the edit changed.
    """
    before, after = _answers(classifier, original), _answers(classifier, edited)
    hits = {}
    for name in asked.attributes:
        group, values = ATTRIBUTES[name]
        hits[name] = np.isin(after[group], [GROUPS[group].index(v) for v in values])
    change = np.abs(np.asarray(edited) - np.asarray(original))
    edited_groups = {ATTRIBUTES[name][0] for name in asked.attributes}
    changed = [before[g] != after[g] for g in GROUPS if g not in edited_groups | {"hair_colour"}]
    if "hair_colour" not in edited_groups:  # bald heads have no hair colour to change
        haired = (before["hair_style"] != 0) & (after["hair_style"] != 0)
        changed.append((before["hair_colour"] != after["hair_colour"])[haired])
    return {
        "success": float(np.mean(np.all(list(hits.values()), axis=0))),
        "leak": float(np.sum(change * (1 - np.asarray(asked.region))) / max(np.sum(change), 1e-6)),
        "identity": float(_likeness(identity, original, edited)),
        "drift": float(np.mean(np.concatenate(changed))),
        "success_of": {name: float(np.mean(hit)) for name, hit in hits.items()},
        "faces": len(original),
    }


def measure(
    domain: Domain, prompt: str, edit: Callable[[Array], tuple], count: int = 200, seed: int = HELD_OUT_SEED
) -> dict | None:
    """Metrics of `edit` (w_plus -> original, edited, ...) on held-out faces; None for a prompt whose truth is not known."""
    asked = held_out(prompt, count, seed)
    if asked is None:
        return None
    generator = domain.generator
    original, edited, *_ = edit(generator.broadcast(generator.mapping(asked.z)))
    return score(domain.classifier(), domain.identity, asked, original, edited)
