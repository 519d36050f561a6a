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
from coral_jax.blend import Features, blend, original_synthesis
from coral_jax.methods import Trainables, get_method, make_trainables
from coral_jax.models.clip import CLIP
from coral_jax.models.generator import Generator
from coral_jax.models.identity import Identity
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier

Mean = Callable[[tuple[Trainables, dict[str, jax.Array]]], tuple[Trainables, dict[str, jax.Array]]]

_NUMBERS = ("truncation", "learning_rate", "region_learning_rate", "lambda_l2", "lambda_id", "lambda_area", "lambda_tv")


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
    learning_rate: float = 0.05  # Adam, of the latent editor
    region_learning_rate: float = 0.05  # Adam, of the region selector
    lambda_l2: float = 8.7e-5
    lambda_id: float = 0.1
    lambda_area: float = 8e-5
    lambda_tv: float = 1e-5

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss term (equations 6 and 7)."""
        lambdas = {"l2": self.lambda_l2, "identity": self.lambda_id, "area": self.lambda_area, "tv": self.lambda_tv}
        return {"clip": 1.0, **lambdas}


class Frozen(NamedTuple):
    """Networks a step reads and never changes (None where a domain has none), and the prompt's CLIP features [E]."""

    generator: Generator
    clip: CLIP
    identity: Identity | None
    segmenter: MixtureSegmenter | PixelClassifier | None
    text: jax.Array


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
    trainables = make_trainables(get_method(settings.method), frozen.generator, segments, key)
    return TrainState(jnp.zeros((), jnp.int32), trainables, optax.scale_by_adam().init(trainables))


def draw_z(frozen: Frozen, key: jax.Array, step: jax.Array, settings: Settings) -> jax.Array:
    """The faces of a step, z [batch_size, z_dim] ~ N(0, I); `key` is the run's, the same for every step."""
    return jax.random.normal(jax.random.fold_in(key, step), (settings.batch_size, frozen.generator.z_dim))


def w_plus_of(frozen: Frozen, z: jax.Array, settings: Settings) -> jax.Array:
    """Codes [B, n_latent, w_dim] of z [B, z_dim], truncated."""
    generator = frozen.generator
    return generator.broadcast(generator.truncate(generator.mapping(z), settings.truncation))


def observe(frozen: Frozen, w_plus: jax.Array, segments: bool) -> Scene:
    """Draw w_plus [B, n_latent, w_dim] without gradient; with its segment map [B, H, W, P] where `segments`."""
    image, features = original_synthesis(frozen.generator, w_plus)
    labels = jax.lax.stop_gradient(frozen.segmenter.segment(features)) if segments else None
    return Scene(w_plus, image, features, labels)


def edit_loss(
    trainables: Trainables, frozen: Frozen, scene: Scene, settings: Settings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss (equation 6 or 7) of one batch, and its metrics: every term, mask area and norm of delta per layer."""
    delta = trainables.editor(scene.w_plus)
    masks = trainables.selector(scene.features, scene.segments)
    drawn = blend(frozen.generator, scene.w_plus, delta, masks, scene.image)
    # One batch through CLIP; a sample's two images lie next to each other, and so on one device of a sharded batch.
    pairs = jnp.stack([drawn.image, drawn.full], axis=1)
    embedded = frozen.clip.encode_image(pairs.reshape(-1, *pairs.shape[2:])).reshape(*pairs.shape[:2], -1)
    terms = {
        "clip": losses.clip_loss(embedded[:, 0], embedded[:, 1], frozen.text),
        "l2": losses.l2_loss(delta),
        "area": losses.area_loss_segments(trainables.selector.confidence)
        if trainables.selector.needs_segments
        else losses.area_loss_masks(masks),
        "tv": losses.tv_loss(masks),
    }
    if frozen.identity is not None:
        original = frozen.identity.embed(scene.image)
        terms["identity"] = losses.identity_loss(frozen.identity.embed(drawn.image), original)
    terms = {name: terms[name] for name in get_method(settings.method).terms if name in terms}
    total = sum(settings.weights[name] * value for name, value in terms.items())
    metrics = {f"loss/{name}": value for name, value in terms.items()} | {
        "loss/total": total,
        "area": jnp.stack([jnp.mean(mask) for mask in masks]),
        "delta_norm": jnp.mean(jnp.linalg.norm(jax.lax.stop_gradient(delta), axis=-1), axis=0),
    }
    return total, metrics


def train_step(
    state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of Adam on fresh images: (state, metrics).  Pure; `key` is the run's, the same for every step."""
    z = draw_z(frozen, key, state.step, settings)
    scene = observe(frozen, w_plus_of(frozen, z, settings), state.trainables.selector.needs_segments)
    gradients, metrics = jax.grad(edit_loss, has_aux=True)(state.trainables, frozen, scene, settings)
    return TrainState(state.step + 1, *descend(state.trainables, state.opt_state, gradients, settings)), metrics


def train_step_many(
    state: TrainState, frozen: Frozen, z: jax.Array, settings: Settings, mean: Mean = lambda tree: tree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of P prompts at once on the faces z [B, z_dim], which are drawn once for all of them: (state, metrics).

    frozen.text is [P, E]; all of the state but its step, and all metrics, have a leading axis P.  Each prompt's step is
    `train_step`'s.  `mean` averages gradients and metrics over the devices that hold other faces.
    """
    scene = observe(frozen, w_plus_of(frozen, z, settings), state.trainables.selector.needs_segments)

    def learn(trainables: Trainables, opt_state: optax.OptState, text: jax.Array) -> tuple:
        gradient = jax.grad(edit_loss, has_aux=True)
        gradients, metrics = mean(gradient(trainables, frozen._replace(text=text), scene, settings))
        return *descend(trainables, opt_state, gradients, settings), metrics

    trainables, opt_state, metrics = jax.vmap(learn)(state.trainables, state.opt_state, frozen.text)
    return TrainState(state.step + 1, trainables, opt_state), metrics


def descend(
    trainables: Trainables, opt_state: optax.OptState, gradients: Trainables, settings: Settings
) -> tuple[Trainables, optax.OptState]:
    """Adam's next trainables and its state."""
    updates, opt_state = optax.scale_by_adam().update(gradients, opt_state)

    def stepped(part: str, rate: float) -> object:
        return jax.tree.map(lambda p, u: p - rate * u, getattr(trainables, part), getattr(updates, part))

    # One Adam, two step sizes: a mapper with its equalised learning rate wants hundreds of times a mask's.
    editor = stepped("editor", settings.learning_rate)
    return Trainables(editor, stepped("selector", settings.region_learning_rate)), opt_state


def apply_edit(
    frozen: Frozen, trainables: Trainables, w_plus: jax.Array, alpha: jax.Array | float, tau: jax.Array | float
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """Apply a trained edit to w_plus [B, n_latent, w_dim]: (original, edited, masks), section 4.1.

    alpha scales delta (negative reverses the edit); mask values (of segments: confidences) below tau become zero.
    """
    delta = alpha * trainables.editor(w_plus)
    scene = observe(frozen, w_plus, trainables.selector.needs_segments)
    masks = trainables.selector(scene.features, scene.segments, tau)
    drawn = blend(frozen.generator, w_plus, delta, masks, scene.image, full=False)
    return drawn.original, drawn.image, drawn.masks


# State is donated; frozen networks never are.  Call positionally: donation ignores keyword arguments.
jit_train_step = jax.jit(train_step, donate_argnums=0)
jit_apply_edit = jax.jit(apply_edit)
