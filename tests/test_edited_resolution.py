"""A domain may say that edits end at layers of fewer pixels than the paper's 256."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from coral_jax import canvas
from coral_jax.artifact import Edit, load_edit
from coral_jax.blend import edited_layers
from coral_jax.config import resolve
from coral_jax.domains import load_domain
from coral_jax.latents import w_plus_of_seeds
from coral_jax.methods import get_method, make_trainables
from coral_jax.runtime.numerics import key_of
from coral_jax.studio.learner import Watcher, as_shown
from coral_jax.training.loop import proxy, record_of, train


@pytest.fixture
def low(weights_dir, tmp_path):
    """The tiny domain, whose edits end at 8 px."""
    shutil.copytree(weights_dir / "tiny", tmp_path / "low")
    description = json.loads((tmp_path / "low" / "domain.json").read_text())
    description |= {"name": "low", "edited_resolution": 8, "loss_resolution": 8}
    (tmp_path / "low" / "domain.json").write_text(json.dumps(description))
    return tmp_path


def test_an_edit_ends_at_the_domains_layers_and_is_one_of_the_whole_generator(low, config):
    config.update(domain="low", weights_dir=str(low), steps=2)
    summary = train(config, low / "run")
    assert [layer["resolution"] for layer in summary["layers"]] == [4, 8, 8]
    edit = load_edit(low / "run", str(low))
    original, edited, masks = edit.apply(w_plus_of_seeds(edit.domain.generator, [0], 0.8))
    assert edited.shape == original.shape == (1, 16, 16, 3) and [mask.shape[1] for mask in masks] == [4, 8, 8]
    assert np.abs(edited - original).max() > 0


def test_other_layers_are_another_fingerprint(low, weights_dir):
    tiny = load_domain("tiny", weights_dir)
    assert load_domain("low", low).fingerprint != tiny.fingerprint
    assert edited_layers(load_domain("low", low).generator) == (1, 2, 3) and edited_layers(tiny.generator) == (1, 2, 3, 4, 5)


def test_methods_that_edit_more_see_more(low, config):
    """Where the config says nothing, StyleCLIP's mapper, which edits all layers, sees the whole image."""
    domain = load_domain("low", low)
    seen = {}
    for method in ("attention_mapper", "styleclip_mapper"):
        config.method = method
        seen[method] = record_of(config, domain)["loss_resolution"]
    assert seen == {"attention_mapper": 8, "styleclip_mapper": 16}


def test_feat_edits_the_same_layers_of_a_lower_generator(domain):
    method = get_method("feat_7")
    layers = method.layers(domain.generator)
    assert layers == (1, 2) and method.layers(domain.generator.lower(8)) == (1,)
    assert method.layers(proxy(domain.generator, method, 8)) == layers


def test_the_studio_shows_what_it_learns_in_small(low, config, monkeypatch):
    """As on domains above 256 px, whose previews have all layers that are edited."""
    monkeypatch.setattr(canvas, "PREVIEW", 8)
    config.update(domain="low", weights_dir=str(low), method="attention_global")
    domain = load_domain("low", low)
    chosen = resolve(config, domain.settings_of(config.prompt))
    edit = as_shown(Edit("surprised", domain, None, chosen.settings, 0, 0.0, None))
    assert edit.domain.generator.size == 8
    trainables = make_trainables(edit.method, domain.generator, None, key_of(0))
    Watcher(edit, [0], low / "live.png").saved(1, [SimpleNamespace(trainables=trainables)])
    assert (low / "live.png").read_bytes().startswith(b"\x89PNG")
