"""The networks: StyleGAN2, CLIP, identity, Inception, EfficientNet, segmenters, the evaluation classifier.

Their files are safetensors that say what they hold; `converters/` makes them from published checkpoints.

    generator = load_generator("weights/generator.safetensors")
    images = generator.synthesis(generator.broadcast(generator.mapping(z)))  # [B, size, size, 3], in [-1, 1]
"""

import os

from flax import nnx

from coral_jax import weights
from coral_jax.models.clip import CLIP
from coral_jax.models.efficientnet import EfficientNet
from coral_jax.models.generator import Generator
from coral_jax.models.identity import Identity
from coral_jax.runtime.numerics import pinned


def load_generator(path: str | os.PathLike) -> Generator:
    """Read a generator of any kind: `mapping(z)`, `broadcast(w)`, `truncate(w, psi)`, `synthesis(w_plus)` (models.generator).

    Weights become float32. Raises ValueError for a file of another network, FileNotFoundError for none.
    """
    return _load(path, Generator, "a generator")


def load_clip(path: str | os.PathLike) -> CLIP:
    """Read a CLIP: `encode_image(images in [-1, 1])`, `encode_text(ids)`; ids are made by coral_jax.tokenizer.

    Weights become float32. Raises ValueError for a file of another network, FileNotFoundError for none.
    """
    return _load(path, CLIP, "a CLIP")


def load_identity(path: str | os.PathLike) -> Identity:
    """Read an identity network: `embed(images in [-1, 1])` gives unit vectors whose cosine says how alike two faces are.

    Weights become float32. Raises ValueError for a file of another network, FileNotFoundError for none.
    """
    return _load(path, Identity, "an identity network")


def load_efficientnet(path: str | os.PathLike) -> EfficientNet:
    """Read an EfficientNet: `patches(images in [-1, 1])` gives maps of features, which say how alike two pictures are.

    Weights become float32. Raises ValueError for a file of another network, FileNotFoundError for none.
    """
    return _load(path, EfficientNet, "an EfficientNet")


@pinned()
def _load(path: str | os.PathLike, kind: type[nnx.Module], wanted: str) -> nnx.Module:
    network = weights.load(path)
    if not isinstance(network, kind):
        raise ValueError(f"{path} holds a network of the kind {type(network).__name__}, not {wanted}; give another file")
    return network
