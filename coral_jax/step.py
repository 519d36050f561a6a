"""One pure training step of an edit, and how a trained edit is applied.

Frozen networks are arguments, never closed over; only `Trainables` are differentiated.  The draw of step s depends on
the key and s alone, so a run resumed from a checkpoint goes on as if never stopped.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from coral_jax.blend import Blend, Masks, Original, original_synthesis
from coral_jax.config import OF_PROMPT, Settings
from coral_jax.latents import truncated_w_plus
from coral_jax.losses import Edited, clip_distance, weighted_sum
from coral_jax.methods import Method, get_method, make_trainables
from coral_jax.models.clip import CLIP
from coral_jax.models.generator import Generator, Styles
from coral_jax.models.identity import Identity
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.optimisers import Channels, Rates, Trainables
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.numerics import key_of

Mean = Callable[[tuple[Trainables, dict[str, jax.Array]]], tuple[Trainables, dict[str, jax.Array]]]


class Frozen(NamedTuple):
    """Networks a step reads and never changes (None where a domain has none), and the prompt's CLIP features [E].

    Two methods read more: `faces`, the codes [B, n_latent, w_dim] of the faces that are edited one by one, and `channels`,
    what an edit that follows from the text alone is made of.
    """

    generator: Generator
    clip: CLIP
    identity: Identity | None
    segmenter: MixtureSegmenter | PixelClassifier | None
    text: jax.Array
    faces: jax.Array | None = None
    channels: Channels | None = None


class TrainState(NamedTuple):
    """What a step changes; a pytree."""

    step: jax.Array  # int32
    trainables: Trainables
    opt_state: optax.OptState


def init_state(settings: Settings, frozen: Frozen, key: jax.Array) -> TrainState:
    """The state of one prompt before step 0; ValueError for an unknown method or one the domain cannot run."""
    segments = None if frozen.segmenter is None else frozen.segmenter.config.segments
    method = get_method(settings.method)
    trainables = make_trainables(method, frozen.generator, segments, key, settings.batch_size)
    return TrainState(jnp.zeros((), jnp.int32), trainables, method.optimiser.init(trainables))


def draw_z(frozen: Frozen, key: jax.Array, step: jax.Array, settings: Settings) -> jax.Array:
    """The faces of a step, z [batch_size, z_dim] ~ N(0, I); `key` is the run's, the same for every step."""
    return jax.random.normal(jax.random.fold_in(key, step), (settings.batch_size, frozen.generator.z_dim))


def w_plus_of(frozen: Frozen, z: jax.Array, settings: Settings) -> jax.Array:
    """Codes [B, n_latent, w_dim] of z [B, z_dim], truncated; `frozen.faces` where each face is edited on its own."""
    if get_method(settings.method).per_face:
        return frozen.faces
    return truncated_w_plus(frozen.generator, z, settings.truncation)


def observe(frozen: Frozen, w_plus: jax.Array, method: Method) -> Original:
    """Draw w_plus [B, n_latent, w_dim] without gradient, with its segment map where the method needs one."""
    original = original_synthesis(frozen.generator, w_plus)
    if not method.needs_segments:
        return original
    return original._replace(segments=jax.lax.stop_gradient(frozen.segmenter.segment(original.features)))


def edit_loss(
    trainables: Trainables, frozen: Frozen, original: Original, settings: Settings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss (equation 6 or 7) of one batch, and its metrics: every term, mask area per layer, norm of
    delta per code, and clip_distance, which is D_CLIP of I*.
    """
    method = get_method(settings.method)
    delta = trainables.editor(original.w_plus)
    masks = masks_of(trainables, original)
    drawn = method.drawing(frozen.generator, original, delta, masks, full=method.full)
    clip_image, clip_full = _clip_features(frozen, drawn)
    edited = Edited(
        original.image, drawn.image, drawn.full, clip_image, clip_full, frozen.text, delta, masks,
        None if trainables.selector is None else trainables.selector.confidence, frozen.clip, frozen.identity,
        settings.area_power, settings.area_exponent,
    )  # fmt: skip
    total, terms = weighted_sum(method.terms, edited, settings)
    metrics = {f"loss/{name}": value for name, value in terms.items()} | {"loss/total": total}
    metrics["clip_distance"] = jnp.mean(clip_distance(clip_image, frozen.text))  # of I*, which all methods draw
    if masks:
        metrics["area"] = jnp.stack([jnp.mean(mask) for mask in masks])
    metrics["delta_norm"] = _norms(jax.lax.stop_gradient(delta))
    return total, metrics


def _norms(delta: jax.Array | Styles) -> jax.Array:
    """Norm of delta for each code, mean over the batch; for each style, where delta is of styles."""
    if isinstance(delta, tuple):
        return jnp.stack([jnp.linalg.norm(row) for row in delta])
    return jnp.mean(jnp.linalg.norm(delta, axis=-1), axis=0)


def masks_of(trainables: Trainables, original: Original, tau: jax.Array | float = 0.0) -> Masks:
    """Masks of the original's faces, one [B, h, w] a layer; none where the whole image is edited."""
    return () if trainables.selector is None else trainables.selector(original.features, original.segments, tau)


def _clip_features(frozen: Frozen, drawn: Blend) -> tuple[jax.Array, jax.Array | None]:
    """CLIP's features [B, E] of I* and, where it was drawn, of the image with masks of one."""
    if drawn.full is None:
        return frozen.clip.encode_image(drawn.image), None
    # One batch through CLIP; a sample's two images lie next to each other, and so on one device of a sharded batch.
    pairs = jnp.stack([drawn.image, drawn.full], axis=1)
    embedded = frozen.clip.encode_image(pairs.reshape(-1, *pairs.shape[2:])).reshape(*pairs.shape[:2], -1)
    return embedded[:, 0], embedded[:, 1]


def train_step(
    state: TrainState, frozen: Frozen, z: jax.Array, settings: Settings, mean: Mean = lambda tree: tree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of P prompts at once on the faces z [B, z_dim], which are drawn once for all of them: (state, metrics).

    frozen.text is [P, E]; frozen.channels, all of the state but its step, and the metrics have a leading axis P.  `mean`
    averages gradients and metrics over the devices that hold other faces.  What prompts may have of their own of the
    settings (`config.OF_PROMPT`) is one number for all, or [P].
    """
    settings, method = of_each(ramped(settings, state.step), len(frozen.text)), get_method(settings.method)
    own_numbers = {name: getattr(settings, name) for name in OF_PROMPT}
    of_all = jax.vmap if len(frozen.text) > 1 else _of_one

    def gradients_of(w_plus: jax.Array) -> tuple[Trainables, dict[str, jax.Array]]:
        original = observe(frozen, w_plus, method)

        def of_prompt(trainables: Trainables, text: jax.Array, channels: Channels | None, numbers: dict) -> tuple:
            own = frozen._replace(text=text, channels=channels)
            return jax.grad(edit_loss, has_aux=True)(trainables, own, original, dataclasses.replace(settings, **numbers))

        return of_all(of_prompt)(state.trainables, frozen.text, frozen.channels, own_numbers)

    found = _in_microbatches(gradients_of, w_plus_of(frozen, z, settings), settings.microbatch_size)

    def descend(trainables: Trainables, opt_state: optax.OptState, found: tuple, channels: Channels | None) -> tuple:
        gradients, metrics = mean(found)
        return *_descend(trainables, opt_state, gradients, settings, channels), metrics

    trainables, opt_state, metrics = of_all(descend)(state.trainables, state.opt_state, found, frozen.channels)
    return TrainState(state.step + 1, trainables, opt_state), metrics


def _in_microbatches(of_faces: Callable, w_plus: jax.Array, most: int) -> object:
    """of_faces(w_plus), which gives means over the faces: of at most so many at once, one after another; 0 is all."""
    faces = len(w_plus)
    size = max(n for n in range(1, (most or faces) + 1) if faces % n == 0)
    if size == faces:
        return of_faces(w_plus)
    found = jax.lax.map(of_faces, w_plus.reshape(-1, size, *w_plus.shape[1:]))
    return jax.tree.map(lambda values: jnp.mean(values, axis=0), found)


def of_each(settings: Settings, prompts: int) -> Settings:
    """Settings of which each of P prompts has its own `config.OF_PROMPT`, [P]."""
    return dataclasses.replace(settings, **{name: jnp.broadcast_to(getattr(settings, name), prompts) for name in OF_PROMPT})


def ramped(settings: Settings, step: jax.Array) -> Settings:
    """The settings of a step: lambda_area grows from zero over the first `area_ramp` of all steps."""
    length = jnp.asarray(settings.area_ramp * settings.steps, jnp.float32)
    share = jnp.where(step < length, step / jnp.maximum(length, 1.0), 1.0)
    return dataclasses.replace(settings, lambda_area=settings.lambda_area * share)


def _of_one(function: Callable) -> Callable:
    """jax.vmap(function) for an axis of one, without tracing it a second time, which takes a second of a run's start."""

    def call(*stacked: object) -> object:
        alone = jax.tree.map(lambda leaf: leaf[0], stacked)
        return jax.tree.map(lambda leaf: leaf[None], function(*alone))

    return call


def learn(
    trainables: Trainables, opt_state: optax.OptState, frozen: Frozen, original: Original, settings: Settings
) -> tuple[Trainables, optax.OptState]:
    """A step of one prompt on faces that were observed: (trainables, state of the optimiser)."""
    gradients, _ = jax.grad(edit_loss, has_aux=True)(trainables, frozen, original, settings)
    return _descend(trainables, opt_state, gradients, settings, frozen.channels)


def _descend(
    trainables: Trainables, opt_state: optax.OptState, gradients: Trainables, settings: Settings, channels: Channels | None
) -> tuple[Trainables, optax.OptState]:
    rates = Rates(settings.learning_rate, settings.region_learning_rate, settings.steps)
    return get_method(settings.method).optimiser.step(trainables, opt_state, gradients, rates, channels)


def find_deltas(frozen: Frozen, settings: Settings, w_plus: jax.Array) -> Trainables:
    """All steps of a method that edits each face on its own, for the faces w_plus [B, n_latent, w_dim]; B is batch_size."""
    original = _jit_observe(frozen, w_plus, get_method(settings.method))
    _, trainables, opt_state = _jit_init_state(settings, frozen, key_of(0))  # nothing of it is random
    for _ in range(settings.steps):  # no loop of XLA's: on a CPU, convolutions are several times slower in there
        trainables, opt_state = _jit_learn(trainables, opt_state, frozen, original, settings)
    return trainables


def apply_edit(
    method: Method,
    frozen: Frozen,
    trainables: Trainables,
    w_plus: jax.Array,
    alpha: jax.Array | float,
    tau: jax.Array | float,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """Apply a method's trained edit to w_plus [B, n_latent, w_dim]: (original, edited, masks), section 4.1.

    alpha scales delta (negative reverses the edit); mask values (of segments: confidences) below tau become zero.  There
    are no masks where the method has none; StyleCLIP's channels of less relevance than tau are left alone instead.
    """
    delta = jax.tree.map(lambda part: alpha * part, trainables.editor(w_plus, tau))
    original = observe(frozen, w_plus, method)
    drawn = method.drawing(frozen.generator, original, delta, masks_of(trainables, original, tau), full=False)
    return drawn.original, drawn.image, drawn.masks


def found_edit(
    trainables: Trainables, original: Original, tau: jax.Array | float
) -> tuple[jax.Array | Styles, tuple[jax.Array, ...]]:
    """Delta, before alpha, and masks of a trained edit on faces that were observed: what other alphas share."""
    return trainables.editor(original.w_plus, tau), tuple(masks_of(trainables, original, tau))


# State is donated; frozen networks never are.  Call positionally: donation ignores keyword arguments.
jit_apply_edit = jit(apply_edit, static_argnums=0)
_jit_learn = jit(learn, donate_argnums=(0, 1))
_jit_observe = jit(observe, static_argnums=2)
_jit_init_state = jit(init_state)
