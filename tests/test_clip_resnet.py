"""CLIP with a ResNet for its image tower: what the rest of the program asks of a CLIP."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_made import RESNET, relative_error

from converters import clip as converter
from coral_jax import metrics, weights
from coral_jax.models import load_clip
from coral_jax.models.clip import CLIPConfig
from coral_jax.models.precision import cast

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The golden ResNet, written to a file of this program and read again."""
    path = tmp_path_factory.mktemp("resnet") / "clip.safetensors"
    source = converter.read_source(DATA / "clip_resnet_tiny_weights.safetensors")
    weights.save(path, converter.load(source, converter.config_of(source, "quick_gelu"), "tiny"))
    return load_clip(path)


def images(batch=2, size=64):
    """Images [batch, size, size, 3] in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


@jax.jit
def seen(clip, given):
    """Features of images, the patches of every stage, and what the attention pool makes of the last."""
    patches = clip.patches(given)
    return clip.encode_image(given), patches, clip.vision.pool(patches[-1].reshape(len(given), 2, 2, -1))


def test_features_are_of_the_last_stages_positions(resnet):
    assert resnet.config == RESNET
    encoded, patches, pooled = seen(resnet, images())
    assert encoded.shape == (2, RESNET.embed_dim) and encoded.dtype == jnp.float32
    assert [x.shape for x in patches] == [(2, 256, 16), (2, 64, 32), (2, 16, 64), (2, 4, 128)]
    np.testing.assert_allclose(pooled, encoded, rtol=1e-4, atol=1e-4)
    assert relative_error(encoded[0], encoded[1]) > 1e-3
    assert resnet.preprocess(images(size=96)).shape == (2, 64, 64, 3)
    with pytest.raises(ValueError, match="use encode_image"):
        resnet.encode_pixels(images(size=96))


def test_perceptual_distance_compares_the_stages(resnet):
    given = images()
    distances = []
    for patches in seen(resnet, given)[1]:
        x, y = np.asarray(patches) / np.linalg.norm(patches, axis=-1, keepdims=True).clip(1e-6)
        distances.append(((x - y) ** 2).sum(axis=-1).mean())
    found = metrics.perceptual_distance(resnet, given, given[::-1])
    np.testing.assert_allclose(found, 2 * [np.mean(distances)], rtol=1e-3)
    np.testing.assert_allclose(metrics.perceptual_distance(resnet, given, given), [0, 0], atol=1e-9)
    assert distances[0] > 1e-3


def test_it_computes_in_bfloat16_with_its_statistics_in_float32(resnet):
    half = cast(resnet, "bfloat16")
    assert half.vision.stem[0].conv.kernel.dtype == jnp.bfloat16 and half.vision.stem[0].norm.var.dtype == jnp.float32
    encoded, patches, _ = seen(half, images())
    assert {x.dtype for x in patches} == {jnp.dtype(jnp.bfloat16)} and encoded.dtype == jnp.float32
    assert 1e-4 < relative_error(encoded, np.asarray(seen(resnet, images())[0])) < 0.1


@pytest.mark.parametrize(("name", "layers", "sizes"), [
    ("RN50", (3, 4, 6, 3), (224, 64, 32, 512, 1024)),
    ("RN101", (3, 4, 23, 3), (224, 64, 32, 512, 512)),
    ("RN50x4", (4, 6, 10, 6), (288, 80, 40, 640, 640)),
    ("RN50x16", (6, 8, 18, 8), (384, 96, 48, 768, 768)),
])  # fmt: skip
def test_published_sizes_are_read_from_the_shapes(name, layers, sizes):
    size, width, heads, text, embed_dim = sizes
    shapes = {
        "visual.attnpool.positional_embedding": (1 + (size // 32) ** 2, 32 * width), "positional_embedding": (77, text),
        "text_projection": (text, embed_dim), "token_embedding.weight": (49408, text),
    }  # fmt: skip
    shapes |= {f"transformer.resblocks.{index}.ln_1.weight": (text,) for index in range(12)}
    for stage, count in enumerate(layers):
        shapes |= {f"visual.layer{stage + 1}.{index}.conv1.weight": (width * 2**stage, 1, 1, 1) for index in range(count)}
    source = converter.Source({name: np.broadcast_to(np.float16(0), shape) for name, shape in shapes.items()})
    assert converter.config_of(source, "quick_gelu") == CLIPConfig(
        image_size=size, patch_size=32, vision_width=width, vision_layers=layers, vision_heads=heads, text_width=text,
        text_heads=text // 64, embed_dim=embed_dim,
    )  # fmt: skip


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="patch_size is 16; give 32, which every ResNet of CLIP has"):
        dataclasses.replace(RESNET, patch_size=16)
    with pytest.raises(ValueError, match="vision_width / vision_heads = 128 / 5 is not whole"):
        dataclasses.replace(RESNET, vision_heads=5)
    with pytest.raises(ValueError, match="give three numbers each, std above 0"):
        dataclasses.replace(RESNET, pixel_std=(0.5, 0.5, 0.0))
