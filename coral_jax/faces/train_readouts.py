"""Trains the read-outs of a MobileStyleGAN, which draw it at 128 and 256 px without its last layers.

    python -m coral_jax.faces.train_readouts --generator=generator.safetensors --folder=faces_training \
        --out=coral_jax/faces/weights/readouts.safetensors

A read-out learns what the whole network draws, averaged down to the resolution of its features.  Faces are drawn once, in
chunks that are kept in the folder; type the same command to go on after a stop.  `--generator` stays as it is:
`python -m converters.mobilestylegan --readouts=FILE` puts the read-outs into it.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags, logging
from flax import nnx

from coral_jax import commands, weights
from coral_jax.models import load_generator
from coral_jax.models.mobile_stylegan import MobileStyleGAN, ReadOut

RESOLUTIONS = (128, 256)
_CHUNK = 20  # faces in a file
_PIXELS = 1536  # of a face, at each resolution
_BATCH = (24, 384)  # faces and pixels of a step
_RATE, _RIDGE, _DECAY = 1e-3, 1e-4, 1e-4
_PSI = (0.5, 1.0)
_COMPONENTS, _CODES = 128, 8000  # principal components that modulate, and the codes they are found from
_DEVIATION = 0.3  # of each: the smaller, the slower Adam moves what they are multiplied by


class Pixels(NamedTuple):
    """Pixels of N faces: what modulates them [N, K], features [N, P, C], colours [N, P, 3]."""

    codes: np.ndarray
    features: np.ndarray
    colours: np.ndarray


@jax.jit
def _draw(generator: MobileStyleGAN, z: jax.Array, psi: jax.Array) -> tuple[jax.Array, dict[int, jax.Array], jax.Array]:
    """The code of one z [1, z_dim], its last features at each of RESOLUTIONS, and its image."""
    w, features = generator.truncate(generator.mapping(z), psi), {}
    for layer, x, image in generator.walk(generator.broadcast(w)):  # noqa: B007  (the last image is the whole one)
        features[layer.resolution] = x[0]
    return w[0], {size: features[size] for size in RESOLUTIONS}, image[0]


def _chunk(generator: MobileStyleGAN, count: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of `count` faces: w, and features and colours at chosen pixels of each resolution."""
    random = np.random.default_rng(seed)
    faces = []
    for _ in range(count):
        z = random.standard_normal((1, generator.z_dim)).astype(np.float32)
        w, features, image = jax.device_get(_draw(generator, z, random.uniform(*_PSI)))
        face = {"w": w}
        for size, x in features.items():
            small = averaged(image, size).reshape(-1, 3)
            chosen = random.choice(len(small), min(_PIXELS, len(small)), replace=False)
            face[f"features_{size}"] = x.reshape(len(small), -1)[chosen].astype(np.float16)
            face[f"colours_{size}"] = small[chosen]
        faces.append(face)
    return {name: np.stack([face[name] for face in faces]) for name in faces[0]}


def averaged(image: np.ndarray, size: int) -> np.ndarray:
    """An image [H, H, 3] at a lower size, each pixel the mean of those it covers."""
    times = len(image) // size
    return image.reshape(size, times, size, times, 3).mean(axis=(1, 3))


def drawn(generator: MobileStyleGAN, source: str, folder: Path, faces: int) -> dict[str, np.ndarray]:
    """Arrays of all faces, from the folder where they are there; ValueError where those are another generator's."""
    chunks = []
    for seed in range(-(-faces // _CHUNK)):
        path = folder / f"readouts_{seed:03}.safetensors"
        if not path.exists():
            logging.info("drawing faces %d to %d of %d", seed * _CHUNK, (seed + 1) * _CHUNK - 1, faces)
            weights.save_tensors(path, _chunk(generator, _CHUNK, seed), {"source_sha256": source})
        arrays, about = weights.load_tensors(path)
        if about.get("source_sha256") != source:
            raise ValueError(f"{path} holds faces of another generator; give another --folder")
        chunks.append(arrays)
    return {name: np.concatenate([chunk[name] for chunk in chunks])[:faces] for name in chunks[0]}


def principal(generator: MobileStyleGAN) -> np.ndarray:
    """Map [w_dim, K] from offsets of w from w_avg to their principal components, all of the same deviation.

    Few faces are drawn: what modulates a read-out must not tell them apart by every coordinate of w.
    """
    z = np.random.default_rng(_CODES).standard_normal((_CODES, generator.z_dim)).astype(np.float32)
    offsets = np.asarray(jax.jit(lambda generator, z: generator.mapping(z) - generator.w_avg[...][None])(generator, z))
    variances, axes = np.linalg.eigh(offsets.T @ offsets / len(offsets))
    return (_DEVIATION * axes / np.sqrt(variances))[:, ::-1][:, :_COMPONENTS].astype(np.float32)


def ridge(pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [C, 3] and bias [3] of the linear map from features to colours, by least squares with a small penalty."""
    width = pixels.features.shape[-1] + 1
    squares, products = np.zeros((width, width)), np.zeros((width, 3))
    for features, colours in zip(pixels.features, pixels.colours, strict=True):
        rows = np.concatenate([features.astype(np.float64), np.ones((len(features), 1))], axis=1)
        squares += rows.T @ rows
        products += rows.T @ colours
    found = np.linalg.solve(squares + _RIDGE * np.trace(squares) / width * np.eye(width), products).astype(np.float32)
    return found[:-1], found[-1]


def _loss(readout: ReadOut, batch: Pixels) -> jax.Array:
    """Mean squared difference of colours, with a penalty on what modulates."""
    guess = readout(batch.features[:, None], batch.codes)[:, 0]
    penalty = jnp.mean(jnp.square(readout.gain[...])) * len(readout.gain) + jnp.sum(jnp.square(readout.shift[...]))
    return jnp.mean(jnp.square(guess - batch.colours)) + _DECAY * penalty


def fit(pixels: Pixels, steps: int) -> ReadOut:
    """A read-out of pixels: the linear map by `ridge`, then all of it by Adam."""
    # Fitted in units of the features' deviations, which are folded into the kernel at the end.
    scale = pixels.features[:, ::4].astype(np.float32).std(axis=(0, 1)) + 1e-6
    pixels = pixels._replace(features=(pixels.features / scale).astype(np.float16))
    readout = ReadOut(len(scale), pixels.codes.shape[1], nnx.Rngs(0))
    for variable, value in zip((readout.kernel, readout.bias), ridge(pixels), strict=True):
        variable.set_value(jnp.asarray(value))
    optimiser = optax.adam(optax.cosine_decay_schedule(_RATE, steps))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(readout: ReadOut, state: optax.OptState, batch: Pixels) -> tuple:
        value, gradient = jax.value_and_grad(_loss)(readout, batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(readout, updates), state, value

    state, random = optimiser.init(readout), np.random.default_rng(0)
    faces, places = (min(most, there) for most, there in zip(_BATCH, pixels.features.shape, strict=False))
    for number in range(steps):
        rows = random.choice(len(pixels.features), faces, replace=False)
        columns = random.choice(pixels.features.shape[1], places, replace=False)
        chosen = np.ix_(rows, columns)
        batch = Pixels(pixels.codes[rows], pixels.features[chosen].astype(np.float32), pixels.colours[chosen])
        readout, state, value = step(readout, state, batch)
        if number % 250 == 0 or number == steps - 1:
            logging.info("step %d/%d, loss %.5f", number + 1, steps, float(value))
    readout.kernel.set_value(readout.kernel[...] / scale[:, None])
    return readout


def psnr(readout: ReadOut, pixels: Pixels) -> np.ndarray:
    """Decibels [N] of every face's pixels, of images in [-1, 1]."""
    guess = np.asarray(readout(pixels.features[:, None].astype(np.float32), pixels.codes))[:, 0]
    error = np.mean(np.square(np.clip(guess, -1, 1) - np.clip(pixels.colours, -1, 1)), axis=(1, 2))
    return 10 * np.log10(4 / error)


def train(generator: MobileStyleGAN, source: str, folder: Path, faces: int, steps: int) -> dict[str, np.ndarray]:
    """float16 arrays of the read-outs by their names in a generator; logs how they do on faces that were held out."""
    arrays, components, found = drawn(generator, source, folder, faces), principal(generator), {}
    offsets, last = arrays["w"] - np.asarray(generator.w_avg[...]), faces - faces // 10
    for size in RESOLUTIONS:
        features, colours = arrays[f"features_{size}"], arrays[f"colours_{size}"]
        readout = fit(Pixels(offsets[:last] @ components, features[:last], colours[:last]), steps)
        for variable in (readout.gain, readout.shift):
            variable.set_value(components @ variable[...])
        for name, variable in weights.named_variables(readout).items():
            found[f"readouts.{size}.{name}"] = np.asarray(variable[...], np.float16)
            variable.set_value(jnp.asarray(found[f"readouts.{size}.{name}"], jnp.float32))
        good = psnr(readout, Pixels(offsets[last:], features[last:], colours[last:]))
        logging.info("%d px: %.2f dB on %d held-out faces, at least %.2f", size, good.mean(), len(good), good.min())
    return found


def main() -> None:
    """Draw, fit, and write the read-outs, as float16."""
    logging.set_verbosity(logging.INFO)
    if not _GENERATOR.value or not _OUT.value:
        raise ValueError("give --generator=FILE, which converters.mobilestylegan made, and --out=FILE")
    generator = load_generator(_GENERATOR.value)
    if not isinstance(generator, MobileStyleGAN) or not set(RESOLUTIONS) < {layer.resolution for layer in generator.layers}:
        raise ValueError(f"{_GENERATOR.value} is no MobileStyleGAN with layers at {RESOLUTIONS} px; give one")
    source = weights.load_tensors(_GENERATOR.value)[1].get("source_sha256")
    if source is None:
        raise ValueError(f"{_GENERATOR.value} does not say what it was made from; convert it with converters.mobilestylegan")
    found = train(generator, source, Path(_FOLDER.value), _FACES.value, _STEPS.value)
    weights.save_tensors(_OUT.value, found, {"source_sha256": source})


if __name__ == "__main__":  # flags here: another training command, imported with this one, may have the same
    _GENERATOR = flags.DEFINE_string("generator", None, "The MobileStyleGAN, as converters.mobilestylegan leaves it.")
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "Where drawn faces are kept.")
    _OUT = flags.DEFINE_string("out", None, "The read-outs' file.")
    _FACES = flags.DEFINE_integer("faces", 400, "Faces to draw; the last tenth is held out.", lower_bound=20)
    _STEPS = flags.DEFINE_integer("steps", 1000, "Steps of each fit.", lower_bound=1)
    commands.run(main)
