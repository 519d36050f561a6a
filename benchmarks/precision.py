"""How far bfloat16 is from float32: images and embeddings of generators and CLIPs, given as files or of a domain.

    python -m benchmarks.precision --domain=toons
    python -m benchmarks.precision --generator=generator.safetensors --clip=clip.safetensors

Prints, for each network, the relative error (the norm of the difference over the norm) over 32 faces, for images also
the mean and the largest difference of a pixel on the scale of 0 to 255, and for embeddings the smallest cosine.
"""

from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from flax import nnx

from coral_jax import commands
from coral_jax.domains import load_domain
from coral_jax.models import load_clip, load_generator
from coral_jax.models.precision import cast
from coral_jax.runtime.numerics import key_of

_DOMAIN = flags.DEFINE_string("domain", None, "domain whose generator, CLIP and identity network are compared")
_GENERATOR = flags.DEFINE_string("generator", None, "file of a converted generator")
_CLIP = flags.DEFINE_string("clip", None, "file of a converted CLIP; it sees random pixels")
_FACES = 32


def both(network: nnx.Module, compute: Callable[[nnx.Module], jax.Array]) -> tuple[np.ndarray, np.ndarray]:
    """What a network computes in float32 and in bfloat16."""
    run = jax.jit(compute)
    return np.asarray(run(network), np.float64), np.asarray(run(cast(network, "bfloat16")), np.float64)


def relative_error(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))


def of_images(name: str, generator: nnx.Module) -> np.ndarray:
    """Print the errors of a generator's images; returns the exact ones [N, h, w, 3]."""
    z = jax.random.normal(key_of(0), (_FACES, generator.z_dim))
    exact, rounded = both(generator, lambda g: g.synthesis(g.broadcast(g.mapping(z))))
    pixels = np.abs(np.clip(rounded, -1, 1) - np.clip(exact, -1, 1)) * 127.5
    print(f"{name}: relative error {relative_error(exact, rounded):.2e}, "
          f"pixels differ by {pixels.mean():.2f} of 255 on average, {pixels.max():.1f} at most")  # fmt: skip
    return exact.astype(np.float32)


def of_embeddings(name: str, network: nnx.Module, embed: Callable[[nnx.Module], jax.Array]) -> None:
    """Print the errors of the embeddings [N, E] of images."""
    exact, rounded = both(network, embed)
    cosine = np.sum(exact * rounded, axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    print(f"{name}: relative error {relative_error(exact, rounded):.2e}, cosine {cosine.min():.5f} at least")


def main() -> None:
    """Compare what the flags name; ValueError if they name nothing."""
    if not (_DOMAIN.value or _GENERATOR.value or _CLIP.value):
        raise ValueError("nothing to compare; give --domain=toons, or --generator=FILE and --clip=FILE")
    if _GENERATOR.value:
        of_images(_GENERATOR.value, load_generator(_GENERATOR.value))
    if _CLIP.value:
        clip = load_clip(_CLIP.value)
        size = clip.config.image_size
        images = jax.random.uniform(key_of(1), (_FACES, size, size, 3), minval=-1.0)
        of_embeddings(_CLIP.value, clip, lambda network: network.encode_image(images))
    if _DOMAIN.value:
        domain = load_domain(_DOMAIN.value)
        images = of_images(f"{domain.name}: generator", domain.generator)
        of_embeddings(f"{domain.name}: clip", domain.clip, lambda network: network.encode_image(images))
        if domain.identity is not None:
            of_embeddings(f"{domain.name}: identity", domain.identity, lambda network: network.embed(images))


if __name__ == "__main__":
    commands.run(main)
