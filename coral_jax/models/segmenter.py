"""Segmenters that read a generator's own features: a mixture model without labels, and a few-shot pixel classifier.

Both start with one linear map of the features of several layers, up-sampled to one resolution and concatenated.  Linear
maps and linear resizing commute, so each layer is mapped at its own resolution first: the concatenation never exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from coral_jax.models.ops import of_channels
from coral_jax.runtime.numerics import key_of

Features = Mapping[int, jax.Array]  # layer index (from 1) -> [B, h, w, C]

VARIANCE_FLOOR = 1e-3  # of the mixture, as a share of each component's variance over all pixels


@dataclass(frozen=True)
class MixtureSegmenterConfig:
    """`layers` lists (layer index, channels) of the features read; `resolution` of the map; `components` of the PCA."""

    layers: tuple[tuple[int, int], ...]
    resolution: int
    segments: int = 5
    components: int = 16


@dataclass(frozen=True)
class PixelClassifierConfig:
    """`layers` lists (layer index, channels) of the features read; `resolution` of the map; MLP widths `hidden`."""

    layers: tuple[tuple[int, int], ...]
    resolution: int
    segments: int
    hidden: tuple[int, ...] = (64, 32)


class MixtureSegmenter(nnx.Module):
    """Gaussian mixture with diagonal covariances over principal components of generator features (the paper's [31]).

    `fit_mixture` makes one; a fresh one segments nothing useful.
    """

    def __init__(self, config: MixtureSegmenterConfig, rngs: nnx.Rngs):
        self.config = config
        shape = (config.segments, config.components)
        self.kernel = nnx.Variable(jnp.zeros((_width(config.layers), config.components)))
        self.bias = nnx.Variable(jnp.zeros((config.components,)))
        self.means = nnx.Variable(jax.random.normal(rngs.params(), shape))
        self.log_variances = nnx.Variable(jnp.zeros(shape))  # logarithms survive storage as float16
        self.log_weights = nnx.Variable(jnp.full((config.segments,), -np.log(config.segments), jnp.float32))

    def segment(self, features: Features) -> jax.Array:
        """Posterior of each segment at each pixel, [B, resolution, resolution, P]."""
        x = project(features, self.config.layers, self.kernel[...], self.config.resolution)
        x = x + of_channels(self.bias[...], x)
        return jax.nn.softmax(_log_joint(x, self.means[...], self.log_variances[...], self.log_weights[...]), axis=-1)


class PixelClassifier(nnx.Module):
    """A small MLP from a pixel's generator features to its class, learnt from few labelled images.

    DatasetGAN's idea (the paper's [49]).  `fit_pixel_classifier` makes one.
    """

    def __init__(self, config: PixelClassifierConfig, rngs: nnx.Rngs):
        self.config = config
        widths = [_width(config.layers), *config.hidden, config.segments]
        self.linears = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in zip(widths[:-1], widths[1:], strict=True)])

    def logits(self, features: Features) -> jax.Array:
        """Class logits [B, resolution, resolution, P]."""
        first = self.linears[0]
        x = project(features, self.config.layers, first.kernel[...], self.config.resolution)
        x = x + of_channels(first.bias[...], x)
        for linear in list(self.linears)[1:]:
            x = linear(jax.nn.relu(x))
        return x

    def segment(self, features: Features) -> jax.Array:
        """Probability of each class at each pixel, [B, resolution, resolution, P]."""
        return jax.nn.softmax(self.logits(features), axis=-1)


def project(features: Features, layers: tuple[tuple[int, int], ...], kernel: jax.Array, resolution: int) -> jax.Array:
    """Concatenate the layers' features, resized to `resolution`, and multiply by kernel [sum of C, K]: [B, R, R, K].

    Raises ValueError where a layer's channels are not those the segmenter was made for.
    """
    given = tuple((index, features[index].shape[-1] if index in features else None) for index, _ in layers)
    if given != tuple(layers):
        raise ValueError(
            f"the segmenter reads features (layer, channels) {layers} but the generator gives {given}; "
            "use the segmenter made with this generator"
        )
    total, start = 0.0, 0
    for index, channels in layers:
        x = features[index] @ kernel[start : start + channels]
        total += _resize(x, resolution)
        start += channels
    return total


def pixel_features(features: Features, layers: tuple[tuple[int, int], ...], resolution: int) -> jax.Array:
    """The features that `project` multiplies, concatenated: [B, R, R, sum of C].  Large; for fitting."""
    return jnp.concatenate([_resize(features[index], resolution) for index, _ in layers], axis=-1)


def fit_mixture(
    config: MixtureSegmenterConfig, pixels: np.ndarray, seed: int = 0, iterations: int = 100
) -> MixtureSegmenter:
    """Fit a mixture to pixels [N, sum of C] drawn from `pixel_features`: standardise, PCA, k-means++ start, EM.

    Raises ValueError for fewer pixels than segments or features.
    """
    count, width = pixels.shape
    if count < max(config.segments, width):
        raise ValueError(f"{count} pixels are too few for {width} features; draw at least {10 * width}")
    pixels = np.asarray(pixels, np.float64)
    mean, scale = pixels.mean(axis=0), pixels.std(axis=0) + 1e-6
    standard = (pixels - mean) / scale
    # Principal axes, without whitening: the mixture has a variance of its own on each.
    _, vectors = np.linalg.eigh(standard.T @ standard / count)
    axes = vectors[:, ::-1][:, : config.components]
    kernel = axes / scale[:, None]
    x = jnp.asarray(standard @ axes, jnp.float32)
    floor = VARIANCE_FLOOR * jnp.var(x, axis=0)
    means = jnp.asarray(_spread_points(np.asarray(x), config.segments, np.random.default_rng(seed)))
    log_variances = jnp.log(jnp.broadcast_to(jnp.var(x, axis=0), means.shape))
    log_weights = jnp.full((config.segments,), -np.log(config.segments), jnp.float32)
    for _ in range(iterations):
        means, log_variances, log_weights = _em_step(x, means, log_variances, log_weights, floor)
    segmenter = MixtureSegmenter(config, nnx.Rngs(0))
    segmenter.kernel[...] = jnp.asarray(kernel, jnp.float32)
    segmenter.bias[...] = jnp.asarray(-mean @ kernel, jnp.float32)
    segmenter.means[...], segmenter.log_variances[...], segmenter.log_weights[...] = means, log_variances, log_weights
    return segmenter


def fit_pixel_classifier(
    config: PixelClassifierConfig,
    pixels: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    steps: int = 500,
    batch: int = 4096,
    learning_rate: float = 1e-3,
) -> PixelClassifier:
    """Fit a classifier to pixels [N, sum of C] and their labels [N] (0 to segments - 1) with Adam on cross entropy."""
    if labels.shape != pixels.shape[:1] or labels.min() < 0 or labels.max() >= config.segments:
        raise ValueError(f"labels must be {len(pixels)} integers from 0 to {config.segments - 1}, one a pixel")
    mean, scale = pixels.mean(axis=0), pixels.std(axis=0) + 1e-6
    standard, labels = jnp.asarray((pixels - mean) / scale), jnp.asarray(labels)
    classifier = PixelClassifier(config, nnx.Rngs(key_of(seed)))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    state, key = optimizer.init(classifier), key_of(seed)

    def loss(classifier: PixelClassifier, x: jax.Array, y: jax.Array) -> jax.Array:
        for i, linear in enumerate(classifier.linears):
            x = linear(jax.nn.relu(x) if i else x)
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    @jax.jit
    def update(classifier, state, standard, labels, key):
        chosen = jax.random.randint(key, (batch,), 0, len(labels))
        gradients = jax.grad(loss)(classifier, standard[chosen], labels[chosen])
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(classifier, updates), state

    for step in range(steps):
        classifier, state = update(classifier, state, standard, labels, jax.random.fold_in(key, step))
    # Fold the standardisation into the first map, so that the classifier reads features as they are.
    first = classifier.linears[0]
    kernel = first.kernel[...] / scale[:, None]
    first.bias[...] = first.bias[...] - mean @ kernel
    first.kernel[...] = kernel
    return classifier


def _width(layers: tuple[tuple[int, int], ...]) -> int:
    return sum(channels for _, channels in layers)


def _resize(x: jax.Array, resolution: int) -> jax.Array:
    shape = (x.shape[0], resolution, resolution, x.shape[-1])
    if x.shape == shape:
        return x
    # Both are linear in x.  Area means when made smaller, so that no pixel is passed over.
    return jax.image.resize(x, shape, "area" if x.shape[1] > resolution else "linear", antialias=False)


def _log_joint(x: jax.Array, means: jax.Array, log_variances: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Log of weight times density of each Gaussian at x [..., K], less a constant: [..., P]."""
    # Expanded, so that it is two matrix products and never [..., P, K]; the terms cancel, hence the precision.
    with jax.default_matmul_precision("highest"):
        precision = jnp.exp(-log_variances)
        square = jnp.square(x) @ precision.T - 2.0 * x @ (means * precision).T
    constant = jnp.sum(jnp.square(means) * precision + log_variances, axis=-1)
    return of_channels(log_weights, square) - 0.5 * (square + of_channels(constant, square))


@jax.jit
def _em_step(
    x: jax.Array, means: jax.Array, log_variances: jax.Array, log_weights: jax.Array, floor: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step of expectation-maximisation on x [N, K]: means [P, K], log variances [P, K] and log weights [P]."""
    posterior = jax.nn.softmax(_log_joint(x, means, log_variances, log_weights), axis=-1)
    mass = posterior.sum(axis=0) + 1e-6
    means = posterior.T @ x / mass[:, None]
    variances = posterior.T @ jnp.square(x) / mass[:, None] - jnp.square(means)
    return means, jnp.log(jnp.maximum(variances, floor[None])), jnp.log(mass / mass.sum())


def _spread_points(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: `count` rows of x [N, K], each drawn with probability growing with its distance from those before."""
    chosen = [x[rng.integers(len(x))]]
    distance = np.full(len(x), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.sum(np.square(x - chosen[-1]), axis=1))
        chosen.append(x[rng.choice(len(x), p=distance / distance.sum())])
    return np.stack(chosen)
