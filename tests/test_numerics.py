"""The same seed is the same face whatever jax is set to, and a record says what decided the bits."""

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY, run_config

from coral_jax.artifact import load_edit
from coral_jax.domains import load_domain
from coral_jax.latents import w_plus_of_seeds
from coral_jax.runtime.numerics import facts, key_of, pinned
from coral_jax.training.loop import record_of, train
from coral_jax.training.workdir import claim


@contextlib.contextmanager
def seed_offset(offset):
    jax.config.update("jax_random_seed_offset", offset)
    try:
        yield
    finally:
        jax.config.update("jax_random_seed_offset", 0)


SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "rbg": lambda: jax.default_prng_impl("rbg"),
    "not partitionable": lambda: jax.threefry_partitionable(False),
    "offset": lambda: seed_offset(7),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "not compiled": lambda: jax.disable_jit(),
}


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_keys_are_those_that_jax_makes_by_default(seed):
    expected = jax.random.key_data(jax.random.key(np.uint32(seed)))
    np.testing.assert_array_equal(jax.random.key_data(key_of(seed)), expected)
    np.testing.assert_array_equal(jax.jit(lambda s: jax.random.key_data(key_of(s)))(np.uint32(seed)), expected)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**64 + 3])
def test_seeds_that_would_stand_for_another_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; give a whole number from 0 to 4294967295"):
        key_of(seed)


@pytest.mark.parametrize("name", SETTINGS)
def test_seeds_draw_the_same_faces_under_other_settings_of_jax(domain, weights_dir, name):
    expected = w_plus_of_seeds(domain.generator, [0, 5], 0.8)
    with SETTINGS[name]():
        found = w_plus_of_seeds(load_domain("tiny", weights_dir).generator, [0, 5], 0.8)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_draws_depend_on_no_setting():
    def draw():
        first, second = jax.random.split(key_of(3))
        return jax.random.normal(first, (5,)), jax.random.normal(jax.random.fold_in(second, 1), (5,))

    expected = pinned()(draw)()
    for name in ("x64", "rbg", "not partitionable", "offset"):
        with SETTINGS[name]():
            found = pinned()(draw)()
        assert found[0].dtype == jnp.float32
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    with SETTINGS["not partitionable"]():
        assert (draw()[1] != expected[1]).all()  # the setting does something where it is not pinned


def test_an_edit_draws_the_same_pictures_under_x64(trained, weights_dir):
    w_plus = w_plus_of_seeds(load_domain("tiny", weights_dir).generator, [1], 0.8)
    expected = load_edit(trained.folder, weights_dir).apply(w_plus)
    with jax.enable_x64(True):
        found = load_edit(trained.folder, weights_dir).apply(w_plus.astype(np.float64))
    assert found[0].dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_command_under_other_settings_ends_in_the_same_weights_and_record(trained, weights_dir, tmp_path):
    command = [
        sys.executable, "-m", "coral_jax.train", "--config=configs/surprised.py:domain=tiny,log_every=1",
        f"--config.weights_dir={weights_dir}", "--config.checkpoint_every=2", "--config.sheet_seeds=0-2",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    settings = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0",
                "JAX_RANDOM_SEED_OFFSET": "5", "JAX_SOFTMAX_CUSTOM_JVP": "1"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    for name in ("edit/weights.safetensors", "config.json", "sheet.png"):
        found, expected = ((folder / name).read_bytes() for folder in (tmp_path / "run", trained.folder))
        assert hashlib.sha256(found).digest() == hashlib.sha256(expected).digest(), name


def test_the_record_says_what_decides_the_bits(trained):
    record = json.loads((trained.folder / "config.json").read_text())
    assert record["random_bits"] == "threefry2x32, partitionable" and record["matmul_precision"] is None


def test_a_run_does_not_go_on_under_another_precision(trained, domain, weights_dir):
    with jax.default_matmul_precision("highest"):
        assert facts()["matmul_precision"] == "highest"
        with pytest.raises(ValueError, match=r"configuration: matmul_precision \(None there, 'highest' here\)"):
            claim(trained.folder, record_of(run_config(weights_dir), domain))


def test_runs_of_older_releases_go_on(trained, weights_dir, tmp_path, capsys):
    shutil.copytree(trained.folder, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    younger = {*facts(), "area_power", "area_exponent", "area_ramp"}
    assert younger <= record.keys() and "microbatch_size" not in record  # which may change on the way
    path.write_text(json.dumps({name: value for name, value in record.items() if name not in younger}))
    config, other = run_config(weights_dir), run_config(weights_dir)
    other.area_ramp, config.microbatch_size = 0.5, 1
    with pytest.raises(ValueError, match=r"configuration: area_ramp \(0.0 there, 0.5 here\)"):
        train(other, tmp_path / "run")
    assert train(config, tmp_path / "run") == trained.summary
    assert "holds this run, finished" in capsys.readouterr().err


def test_every_key_of_the_program_says_its_generator():
    sources = [path for path in Path(REPOSITORY, "coral_jax").rglob("*.py") if path.name != "numerics.py"]
    for path in sources:
        for call in re.findall(r"random\.(?:key|PRNGKey|wrap_key_data)\(.*", path.read_text()):
            assert "impl=" in call, f"{path}: {call}; take runtime.numerics.key_of"
