"""Trains the toons StyleGAN2 by regression: the drawing that a latent means is known, so no discriminator is needed.

    python -m coral_jax.toons.train_generator --folder=toons_training

Five stages, each kept in the folder, so that a stopped run goes on with the next one:
1. shapes, at 32 px: the features must tell each part's share of every final pixel, through a linear sub-pixel head;
   the input is an exact w, which holds the drawn numbers linearly (a fixed random rotation of them);
2. images, at full size, from the exact w;
3. mapping: z -> w;
4. everything together, from the mapping's w, for long: lips, make-up and grey hair get their colours last;
5. beyond: faces that go on past what an edit should make of them (`pool.exaggerate`), drawn as far as faces go. Without
   it a mouth that is opened less than closed, as by a reversed smile, dissolves.
Codes below SHAPE_CODES see the shape's latent, the others the colours', so that layers come to mean what they mean in a
StyleGAN2 of photographs. ToRGB styles are kept constant: colour is decided in convolutions, which edits can reach.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax import nnx
from jax import Array

from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.runtime.numerics import key_of
from coral_jax.toons.faces import Z_DIM, Face, faces_from_z, vectors
from coral_jax.toons.pool import Pool, exaggerate, from_bytes, load_pool, mixed, shuffled, to_bytes
from coral_jax.toons.renderer import PARTS, render_numbers
from coral_jax.worlds.fitting import fit, fresh

CONFIG = StyleGAN2Config(
    size=64, z_dim=Z_DIM, w_dim=128, mapping_layers=4, channels=((4, 128), (8, 128), (16, 128), (32, 64), (64, 32))
)
_FEATURES = 7  # the last 32-px convolution: what the sub-pixel head of stage 1 reads
_BATCH = 16
# Small parts weigh more: a mouth covers 2 % of the pixels, make-up is drawn on the skin.
_PART_WEIGHTS = np.asarray([1, 1, 2, 1, 4, 4, 6, 3, 5, 2, 4, 3], np.float32)


def target_w(face: Face) -> Array:
    """The w [B, w_dim] that holds the drawn numbers of each face: a fixed rotation of them, unit spread per number."""
    numbers = jnp.concatenate(vectors(face), axis=-1)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((CONFIG.w_dim, CONFIG.w_dim)))
    return numbers @ jnp.asarray(rotation[: numbers.shape[1]], jnp.float32)


def fit_mapping(generator: StyleGAN2, steps: int) -> StyleGAN2:
    """Stage 3: the mapping network alone, on fresh latents."""

    def loss(mapping: nnx.Module, key: Array) -> Array:
        z = jax.random.normal(key, (512, Z_DIM))
        return jnp.mean(jnp.square(mapping(z) - target_w(faces_from_z(z))))

    keys = ((key_of(i),) for i in range(steps))
    generator.mapping = fit(generator.mapping, loss, keys, steps, 20.0, "mapping")
    return generator


class _ShapeTrainee(nnx.Module):
    """The generator through 32 px, with the head that reads part shares at full size from its features."""

    def __init__(self, generator: StyleGAN2, rngs: nnx.Rngs) -> None:
        self.generator = generator
        self.cell = CONFIG.size // 32
        self.head = nnx.Linear(dict(CONFIG.channels)[32], len(PARTS) * self.cell**2, rngs=rngs)

    def parts(self, features: Array) -> Array:
        """Part shares [B, size, size, P] from features [B, 32, 32, C], a cell of final pixels for each position."""
        b, h, w, _ = features.shape
        cells = self.head(features).reshape(b, h, w, self.cell, self.cell, len(PARTS))
        return cells.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * self.cell, w * self.cell, len(PARTS))


def _part_loss(predicted: Array, parts: Array) -> Array:
    return jnp.mean(jnp.square(predicted - parts.astype(jnp.float32) / 255) * _PART_WEIGHTS)


def _shape_loss(trainee: _ShapeTrainee, w_plus: Array, parts: Array) -> Array:
    for _, x, _ in islice(trainee.generator.walk(w_plus), _FEATURES):  # noqa: B007
        pass
    return _part_loss(trainee.parts(x), parts)


def draw(generator: StyleGAN2, w_plus: Array) -> tuple[Array, Array]:
    """(image, features of the last 32-px layer) with constant ToRGB styles: w = 0 there, so that nothing learns them."""
    image = features = None
    for layer, x, _ in generator.walk(w_plus):
        image = generator.rgb(layer, x, jnp.zeros_like(w_plus[:, 0]), image)
        features = x if layer.index == _FEATURES else features
    return image, features


def _image_loss(trainee: _ShapeTrainee, w_plus: Array, images: Array, parts: Array) -> Array:
    image, features = draw(trainee.generator, w_plus)
    difference = image - images
    error = jnp.abs(difference) + jnp.square(difference)
    emphasis = 1 + 0.5 * (parts.astype(jnp.float32) / 255) @ (_PART_WEIGHTS - 1)
    edges = sum(jnp.mean(jnp.abs(jnp.diff(difference, axis=axis))) for axis in (1, 2))  # what keeps curls and outlines sharp
    return jnp.mean(error * emphasis[..., None]) + 0.5 * edges + 0.1 * _part_loss(trainee.parts(features), parts)


def _joint_loss(trainee: _ShapeTrainee, z_shape: Array, z_colour: Array, images: Array, parts: Array) -> Array:
    generator = trainee.generator
    w_plus = mixed(generator, generator.mapping(z_shape), generator.mapping(z_colour))
    return _image_loss(trainee, w_plus, images, parts)


def _beyond_batches(generator: StyleGAN2, count: int) -> Iterator[tuple]:
    faces = exaggerate(count, 6)
    codes = np.asarray(jax.jit(lambda generator, faces: faces.codes(generator))(generator, faces))
    images, parts = jax.jit(lambda faces: render_numbers(faces.numbers()))(faces)
    images, parts = to_bytes(images), np.asarray(jnp.rint(parts * 255), np.uint8)
    for rows in shuffled(count, _BATCH, 7):
        yield codes[rows], from_bytes(images[rows]), parts[rows]


def _batches(pool: Pool, generator: StyleGAN2, stage: str, seed: int) -> Iterator[tuple]:
    w_shape, w_colour = target_w(faces_from_z(pool.z_shape)), target_w(faces_from_z(pool.z_colour))
    for rows in pool.batches(_BATCH, seed):
        if stage == "together":
            yield pool.z_shape[rows], pool.z_colour[rows], from_bytes(pool.images[rows]), pool.parts[rows]
            continue
        w_plus = mixed(generator, w_shape[rows], w_colour[rows])
        images = (from_bytes(pool.images[rows]),) if stage == "images" else ()
        yield (w_plus, *images, pool.parts[rows])


def _finish(generator: StyleGAN2) -> StyleGAN2:
    """Make the constant ToRGB styles part of the weights, and w_avg the mean of w."""
    for to_rgb in generator.to_rgbs:
        to_rgb.modulation.kernel = nnx.Param(jnp.zeros_like(to_rgb.modulation.kernel[...]))
    z = jax.random.normal(key_of(1), (16384, Z_DIM))
    generator.w_avg = nnx.Variable(jnp.mean(generator.mapping(z), axis=0))
    generator.fused_upsampling = False
    return generator


def train(folder: Path, pool_size: int, steps: list[int]) -> StyleGAN2:
    """All stages; those that the folder has are not done again."""
    generator = fresh(StyleGAN2, CONFIG)
    generator.fused_upsampling = True
    trainee = _ShapeTrainee(generator, nnx.Rngs(1))
    pool = None
    losses = {"shapes": (_shape_loss, 0.02), "images": (_image_loss, 0.02), "mapping": None,
              "together": (_joint_loss, 0.012), "beyond": (_image_loss, 0.006)}  # fmt: skip
    for (stage, job), count in zip(losses.items(), steps, strict=True):
        path = Path(folder) / f"{stage}.safetensors"
        if path.exists():
            weights.fill(trainee, weights.load_tensors(path)[0], str(path))
            continue
        if stage == "mapping":
            trainee.generator = fit_mapping(trainee.generator, count)
        else:
            if stage == "beyond":
                batches = _beyond_batches(trainee.generator, pool_size)
            else:
                pool = pool or load_pool(folder, pool_size, 2)
                batches = _batches(pool, trainee.generator, stage, 3)
            trainee = fit(trainee, job[0], batches, count, job[1], stage)
        tensors = {name: np.asarray(v[...]) for name, v in weights.named_variables(trainee).items()}
        weights.save_tensors(path, tensors, {})
    return _finish(trainee.generator)


def main(_: list[str]) -> None:
    """Train, and write generator.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    generator = train(folder, _POOL.value, [int(s) for s in _STEPS.value])
    weights.save(folder / "generator.safetensors", generator, np.float16)


if __name__ == "__main__":  # other programs have flags of the same names
    _FOLDER = flags.DEFINE_string("folder", "toons_training", "where pools, stages and the result are kept")
    _POOL = flags.DEFINE_integer("pool", 14336, "number of drawn faces to learn from")
    _STEPS = flags.DEFINE_list("steps", ["1600", "1500", "24000", "3200", "1200"], "steps of the five stages")
    app.run(main)
