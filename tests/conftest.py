"""A tiny domain with random weights, for all that needs a domain but no picture worth looking at."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from http_server import Server

from coral_jax import weights
from coral_jax.artifact import load_edit
from coral_jax.config import make
from coral_jax.domains import load_domain
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.models.identity import Identity
from coral_jax.models.segmenter import (
    MixtureSegmenter,
    MixtureSegmenterConfig,
    PixelClassifier,
    PixelClassifierConfig,
)
from coral_jax.tokenizer import Tokenizer
from coral_jax.training.loop import train

CAPTIONS = ["a surprised face", "blue eyes and purple hair", "a mohawk hairstyle", "beard, lipstick, happy"] * 3
PARTS = PixelClassifierConfig(layers=((2, 6), (4, 4)), resolution=8, segments=4, hidden=(8,))
MIXTURE = MixtureSegmenterConfig(layers=((2, 6), (4, 4)), resolution=8, segments=5, components=4)
SETTINGS = {
    "steps": 6, "tau": 0.4, "truncation": 0.8, "learning_rate": 0.01, "lambda_area": 1e-4,
    "methods": {
        "segment_global": {"steps": 3, "lambda_l2": 0.001},
        "attention_mapper": {"prompts": {"blue eyes": {"lambda_id": 0.9, "tau": 0.3}}},
    },
}  # fmt: skip
REPOSITORY = Path(__file__).parent.parent
jax.config.update("jax_numpy_rank_promotion", "raise")  # what broadcasts says so
# Not optimised, programs compile in half the time, and tiny networks need no speed; `optimised` is for what does.
jax.config.update("jax_disable_most_optimizations", True)
# Small programs compile in a third of the time without XLA's newer code for fused operations.  A flag that XLA does not
# know ends the process, so it is given to the versions that are known to take it.
if jax.__version_info__[:2] == (0, 10):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"


def make_domain(folder, seed=0, **fields):
    """Write a domain of random weights; `fields` go into its domain.json."""
    folder.mkdir(parents=True)
    Tokenizer.train(CAPTIONS, 530, folder / "tokenizer.json")
    vocab_size = Tokenizer(folder / "tokenizer.json", 12).vocab_size
    clip = CLIPConfig(
        image_size=16, patch_size=8, vision_width=8, vision_layers=2, vision_heads=1, text_width=8,
        text_layers=2, text_heads=1, embed_dim=8, context=12, vocab_size=vocab_size,
    )  # fmt: skip
    networks = {
        "generator": lambda: tiny.StyleGAN2(tiny.GENERATOR, nnx.Rngs(0)),
        "clip": lambda: CLIP(clip, nnx.Rngs(0)),
        "identity": lambda: Identity(tiny.IDENTITY_SIZES, nnx.Rngs(0)),
        "mixture": lambda: MixtureSegmenter(MIXTURE, nnx.Rngs(0)),
        "parts": lambda: PixelClassifier(PARTS, nnx.Rngs(0)),
    }
    for index, (name, network) in enumerate(networks.items()):
        weights.save(folder / f"{name}.safetensors", tiny.build(network, 10 * seed + index), dtype=np.float16)
    description = {
        "name": folder.name, "generator": "generator.safetensors", "clip": "clip.safetensors",
        "identity": "identity.safetensors",
        "segmenters": {"mixture": "mixture.safetensors", "parts": "parts.safetensors"},
        "default_segmenter": "mixture", "tokenizer": "tokenizer.json", "context": 12, "settings": SETTINGS,
    } | fields  # fmt: skip
    (folder / "domain.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
    """Compiled programs and the user's cache go to temporary folders, shared with the processes that tests start."""
    folder = tmp_path_factory.mktemp("cache")
    base = tmp_path_factory.getbasetemp()  # the worker's own, inside the one of the whole run
    compiled = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    os.environ.update(XDG_CACHE_HOME=str(folder), JAX_COMPILATION_CACHE_DIR=str(compiled))
    os.environ.update(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1", JAX_PLATFORMS="cpu")
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of processes that tests start
    os.environ.pop("CORAL_JAX_WEIGHTS", None)
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


@pytest.fixture
def optimised():
    """Compile as for users: for tests of that, and of networks that are not tiny."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory, caches):
    """A weights folder with one domain, "tiny"."""
    folder = tmp_path_factory.mktemp("weights")
    make_domain(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def domain(weights_dir):
    """The tiny domain, loaded."""
    return load_domain("tiny", weights_dir)


@pytest.fixture
def config(weights_dir):
    """The config of a short run on the tiny domain."""
    return run_config(weights_dir)


def run_config(weights_dir):
    """The config that `trained` ran; a command line would set it by flags."""
    made = make("surprised", "domain=tiny,checkpoint_every=2,log_every=1,sheet_seeds=0-2")
    made.weights_dir = str(weights_dir)
    return made


@pytest.fixture(scope="session")
def trained(weights_dir, tmp_path_factory):
    """A finished run on the tiny domain: its folder and its summary."""
    folder = tmp_path_factory.mktemp("runs") / "surprised"
    return SimpleNamespace(folder=folder, summary=train(run_config(weights_dir), folder))


@pytest.fixture(scope="session")
def edit(trained, weights_dir):
    """The edit of that run, loaded; not to be changed."""
    return load_edit(trained.folder, weights_dir)


@pytest.fixture
def server():
    """A web server on this machine."""
    with Server() as running:
        yield running
