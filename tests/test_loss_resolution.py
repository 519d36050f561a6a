"""A domain may say at which resolution losses see its images; the config goes before it."""

import json

import pytest
from conftest import make_domain, run_config

from coral_jax.domains import load_domain
from coral_jax.training.loop import record_of, train


@pytest.fixture
def lower(tmp_path):
    """A weights folder with a domain whose losses are to see 8 px, of 16."""
    return make_domain(tmp_path / "weights" / "low", loss_resolution=8).parent


def test_the_domains_resolution_is_taken_and_recorded(lower, monkeypatch):
    """Where it shows what the method edits; else the least that does."""
    domain, config = load_domain("low", lower), run_config(lower)
    assert record_of(config, domain)["loss_resolution"] == 16
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    assert record_of(config, domain)["loss_resolution"] == 8
    config.loss_resolution = 16
    assert record_of(config, domain)["loss_resolution"] == 16


def test_it_is_what_losses_see(lower, monkeypatch, tmp_path):
    config = run_config(lower)
    config.domain = "low"
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loss_resolution"] == 8


def test_what_is_no_resolution_is_refused(tmp_path):
    make_domain(tmp_path / "low", loss_resolution="8")
    with pytest.raises(ValueError, match="loss_resolution is '8'"):
        load_domain("low", tmp_path)
