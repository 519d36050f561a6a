"""One pure training step of an edit, and how a trained edit is applied.

Frozen networks are arguments, never closed over; only `Trainables` are differentiated.  The draw of step s depends on
the key and s alone, so a run resumed from a checkpoint goes on as if never stopped.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from coral_jax import losses
from coral_jax.baselines.stylespace import Styles, styled_synthesis
from coral_jax.blend import Blend, Features, Masks, blend, blend_once, edited_synthesis, original_synthesis
from coral_jax.latents import truncated_w_plus
from coral_jax.methods import Method, Trainables, get_method, make_trainables
from coral_jax.models.clip import CLIP
from coral_jax.models.generator import Generator
from coral_jax.models.identity import Identity
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.optimisers import OPTIMISERS, Rates
from coral_jax.runtime.compiling import jit

Mean = Callable[[tuple[Trainables, dict[str, jax.Array]]], tuple[Trainables, dict[str, jax.Array]]]

_NUMBERS = (
    "truncation", "learning_rate", "region_learning_rate", "lambda_l2", "lambda_id", "lambda_area", "lambda_tv", "strength",
    "steps",
)  # fmt: skip


@functools.partial(jax.tree_util.register_dataclass, meta_fields=("method", "batch_size"), data_fields=_NUMBERS)
@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of a step.  The lambdas are ours (the paper publishes none).

    A pytree of its numbers: one compiled step serves every rate and every lambda, and only another method or batch
    size needs another.
    """

    method: str = "attention_mapper"
    batch_size: int = 3
    truncation: float = 0.7  # psi of the sampled w
    learning_rate: float = 0.05  # of the latent editor
    region_learning_rate: float = 0.05  # of the region selector
    lambda_l2: float = 8.7e-5
    lambda_id: float = 0.1
    lambda_area: float = 8e-5
    lambda_tv: float = 1e-5
    strength: float = 1.0  # what alpha is multiplied by when the edit is applied
    steps: int = 20_000  # of the run, for rates that follow a schedule

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss term (equations 6 and 7)."""
        lambdas = {"l2": self.lambda_l2, "identity": self.lambda_id, "area": self.lambda_area, "tv": self.lambda_tv}
        return {"clip": 1.0, **lambdas}


class Frozen(NamedTuple):
    """Networks a step reads and never changes (None where a domain has none), and the prompt's CLIP features [E].

    `given` is what else a method needs, a pytree made by `given.given`.
    """

    generator: Generator
    clip: CLIP
    identity: Identity | None
    segmenter: MixtureSegmenter | PixelClassifier | None
    text: jax.Array
    given: object = None


class TrainState(NamedTuple):
    """What a step changes; a pytree."""

    step: jax.Array  # int32
    trainables: Trainables
    opt_state: optax.OptState


class Scene(NamedTuple):
    """A batch of original images and all that is known of them before any edit."""

    w_plus: jax.Array
    image: jax.Array
    features: Features
    segments: jax.Array | None


def init_state(settings: Settings, frozen: Frozen, key: jax.Array) -> TrainState:
    """The state before step 0, with fresh trainables; ValueError for an unknown method or one the domain cannot run."""
    segments = None if frozen.segmenter is None else frozen.segmenter.config.segments
    method = get_method(settings.method)
    trainables = make_trainables(method, frozen.generator, segments, key, settings.batch_size)
    return TrainState(jnp.zeros((), jnp.int32), trainables, OPTIMISERS[method.optimiser].init(trainables))


def draw_z(frozen: Frozen, key: jax.Array, step: jax.Array, settings: Settings) -> jax.Array:
    """The faces of a step, z [batch_size, z_dim] ~ N(0, I); `key` is the run's, the same for every step."""
    return jax.random.normal(jax.random.fold_in(key, step), (settings.batch_size, frozen.generator.z_dim))


def w_plus_of(frozen: Frozen, z: jax.Array, settings: Settings) -> jax.Array:
    """Codes [B, n_latent, w_dim] of z [B, z_dim], truncated; those given, where each face is edited on its own."""
    if get_method(settings.method).per_face:
        return frozen.given
    return truncated_w_plus(frozen.generator, z, settings.truncation)


def observe(frozen: Frozen, w_plus: jax.Array, segments: bool) -> Scene:
    """Draw w_plus [B, n_latent, w_dim] without gradient; with its segment map [B, H, W, P] where `segments`."""
    image, features = original_synthesis(frozen.generator, w_plus)
    labels = jax.lax.stop_gradient(frozen.segmenter.segment(features)) if segments else None
    return Scene(w_plus, image, features, labels)


def delta_of(trainables: Trainables, frozen: Frozen, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array | Styles:
    """What the editor adds to the codes w_plus [B, n_latent, w_dim]: [B, n, w_dim]; or to styles: [C_in] a convolution."""
    if trainables.method.drawing == "styles":
        return trainables.editor(frozen.generator.styles(w_plus), tau)
    return trainables.editor(w_plus)


def draw(method: Method, generator: Generator, scene: Scene, delta: jax.Array | Styles, masks: Masks, *, full: bool) -> Blend:
    """Draw the edit of a scene by delta inside masks as the method does; with the image with masks of one where `full`."""
    given = (generator, scene.w_plus, delta)
    match method.drawing:
        case "blend":
            return blend(*given, masks, scene.image, full=full)
        case "blend_originals":
            return blend(*given, masks, scene.image, full=full, features=scene.features)
        case "blend_rgb":
            return blend(*given, masks, scene.image, full=full, edit_rgb=True)
        case "once":
            return blend_once(*given, masks[0], scene.image, scene.features, full=full)
        case "whole":
            return edited_synthesis(*given, scene.image)
        case "styles":
            styles = jax.tree.map(jnp.add, generator.styles(scene.w_plus), delta)
            return Blend(styled_synthesis(generator, styles, scene.w_plus), None, scene.image, ())


def edit_loss(
    trainables: Trainables, frozen: Frozen, scene: Scene, settings: Settings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss (equation 6 or 7) of one batch, and its metrics: every term, mask area and norm of delta per layer.

    clip_distance is D_CLIP of I*.
    """
    method = trainables.method
    delta = delta_of(trainables, frozen, scene.w_plus)
    masks = _masks(trainables, scene)
    drawn = draw(method, frozen.generator, scene, delta, masks, full=method.full)
    edited, full = _clip_features(frozen, drawn)
    terms = {
        "clip": losses.clip_loss_of_one(edited, frozen.text)
        if full is None
        else losses.clip_loss(edited, full, frozen.text)
    }
    if method.l2 is not None:
        terms["l2"] = losses.l2_loss(delta) if method.l2 == "sum" else losses.l2_loss_mean(delta)
    if masks:
        terms["area"] = (
            losses.area_loss_segments(trainables.selector.confidence)
            if method.needs_segments
            else losses.area_loss_masks(masks)
        )
        terms["tv"] = losses.tv_loss(masks)
    if frozen.identity is not None:
        original = frozen.identity.embed(scene.image)
        terms["identity"] = losses.identity_loss(frozen.identity.embed(drawn.image), original)
    terms = {name: terms[name] for name in method.terms if name in terms}
    total = sum(settings.weights[name] * value for name, value in terms.items())
    metrics = {f"loss/{name}": value for name, value in terms.items()} | {"loss/total": total}
    metrics["clip_distance"] = jnp.mean(losses.clip_distance(edited, frozen.text))  # of I*, which all methods draw
    if masks:
        metrics["area"] = jnp.stack([jnp.mean(mask) for mask in masks])
    metrics["delta_norm"] = _norms(jax.lax.stop_gradient(delta))
    return total, metrics


def _norms(delta: jax.Array | Styles) -> jax.Array:
    """Norm of delta in each layer, mean over the batch where it has one."""
    if isinstance(delta, tuple):
        return jnp.stack([jnp.linalg.norm(row) for row in delta])
    return jnp.mean(jnp.linalg.norm(delta, axis=-1), axis=0)


def _masks(trainables: Trainables, scene: Scene, tau: jax.Array | float = 0.0) -> Masks:
    return () if trainables.selector is None else trainables.selector(scene.features, scene.segments, tau)


def _clip_features(frozen: Frozen, drawn: Blend) -> tuple[jax.Array, jax.Array | None]:
    """CLIP's features [B, E] of I* and, where it was drawn, of the image with masks of one."""
    if drawn.full is None:
        return frozen.clip.encode_image(drawn.image), None
    # One batch through CLIP; a sample's two images lie next to each other, and so on one device of a sharded batch.
    pairs = jnp.stack([drawn.image, drawn.full], axis=1)
    embedded = frozen.clip.encode_image(pairs.reshape(-1, *pairs.shape[2:])).reshape(*pairs.shape[:2], -1)
    return embedded[:, 0], embedded[:, 1]


def train_step(
    state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on fresh images: (state, metrics).  Pure; `key` is the run's, the same for every step."""
    w_plus = w_plus_of(frozen, draw_z(frozen, key, state.step, settings), settings)
    return learn(state, frozen, observe(frozen, w_plus, get_method(settings.method).needs_segments), settings)


def train_step_many(
    state: TrainState, frozen: Frozen, z: jax.Array, settings: Settings, mean: Mean = lambda tree: tree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of P prompts at once on the faces z [B, z_dim], which are drawn once for all of them: (state, metrics).

    frozen.text is [P, E]; all of frozen.given, of the state but its step, and of the metrics have a leading axis P.  Each
    prompt's step is `train_step`'s.  `mean` averages gradients and metrics over the devices that hold other faces.
    """
    first = frozen._replace(given=jax.tree.map(lambda leaf: leaf[0], frozen.given))  # faces are the same for all prompts
    scene = observe(frozen, w_plus_of(first, z, settings), get_method(settings.method).needs_segments)

    def learn_one(trainables: Trainables, opt_state: optax.OptState, text: jax.Array, given: object) -> tuple:
        own = frozen._replace(text=text, given=given)
        gradients, metrics = mean(jax.grad(edit_loss, has_aux=True)(trainables, own, scene, settings))
        return *descend(trainables, opt_state, gradients, settings, own), metrics

    of_all = jax.vmap(learn_one) if len(frozen.text) > 1 else _of_one(learn_one)
    trainables, opt_state, metrics = of_all(state.trainables, state.opt_state, frozen.text, frozen.given)
    return TrainState(state.step + 1, trainables, opt_state), metrics


def _of_one(function: Callable) -> Callable:
    """jax.vmap(function) for an axis of one, without tracing it a second time, which takes a second of a run's start."""

    def call(*stacked: object) -> object:
        alone = jax.tree.map(lambda leaf: leaf[0], stacked)
        return jax.tree.map(lambda leaf: leaf[None], function(*alone))

    return call


def learn(state: TrainState, frozen: Frozen, scene: Scene, settings: Settings) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of the method's optimiser on a scene: (state, metrics)."""
    gradients, metrics = jax.grad(edit_loss, has_aux=True)(state.trainables, frozen, scene, settings)
    trainables, opt_state = descend(state.trainables, state.opt_state, gradients, settings, frozen)
    return TrainState(state.step + 1, trainables, opt_state), metrics


def descend(
    trainables: Trainables, opt_state: optax.OptState, gradients: Trainables, settings: Settings, frozen: Frozen
) -> tuple[Trainables, optax.OptState]:
    """The optimiser's next trainables and its state."""
    rates = Rates(settings.learning_rate, settings.region_learning_rate, settings.steps)
    return OPTIMISERS[trainables.method.optimiser].step(trainables, opt_state, gradients, rates, frozen.given)


def find_deltas(frozen: Frozen, settings: Settings, w_plus: jax.Array) -> Trainables:
    """All steps of a method that edits each face on its own, for the faces w_plus [B, n_latent, w_dim]; B is batch_size."""
    scene = _jit_observe(frozen, w_plus, False)
    state = _jit_init_state(settings, frozen, jax.random.key(0))  # nothing of it is random
    for _ in range(settings.steps):  # no loop of XLA's: on a CPU, convolutions are several times slower in there
        state, _ = _jit_learn(state, frozen, scene, settings)
    return state.trainables


def apply_edit(
    frozen: Frozen, trainables: Trainables, w_plus: jax.Array, alpha: jax.Array | float, tau: jax.Array | float
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """Apply a trained edit to w_plus [B, n_latent, w_dim]: (original, edited, masks), section 4.1.

    alpha scales delta (negative reverses the edit); mask values (of segments: confidences) below tau become zero.  There
    are no masks where the method has none; StyleCLIP's channels of less relevance than tau are left alone instead.
    """
    delta = jax.tree.map(lambda part: alpha * part, delta_of(trainables, frozen, w_plus, tau))
    scene = observe(frozen, w_plus, trainables.method.needs_segments)
    masks = _masks(trainables, scene, tau)
    drawn = draw(trainables.method, frozen.generator, scene, delta, masks, full=False)
    return drawn.original, drawn.image, drawn.masks


# State is donated; frozen networks never are.  Call positionally: donation ignores keyword arguments.
jit_train_step = jit(train_step, donate_argnums=0)
jit_apply_edit = jit(apply_edit)
_jit_learn = jit(learn, donate_argnums=0)
_jit_observe = jit(observe, static_argnums=2)
_jit_init_state = jit(init_state)
