"""compiling.py: options where XLA knows them, and a `jit` that is jax.jit's otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.models.ops import conv2d
from coral_jax.runtime import compiling
from coral_jax.runtime.target import aimed_at

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture
def asked_anew():
    compiling._known.cache_clear()
    yield
    compiling._known.cache_clear()


def test_convolutions_are_xlas_own():
    x, kernel = jnp.ones((1, 32, 32, 64)), jnp.ones((3, 3, 64, 64))
    for compiled in (compiling.compile_ahead(jax.jit(conv2d), x, kernel), compiling.jit(conv2d).lower(x, kernel).compile()):
        assert "convolution(" in compiled.as_text() and "ynn" not in compiled.as_text()


def test_options_that_this_xla_does_not_know_are_left_out(asked_anew, monkeypatch):
    assert compiling.options() == compiling.CPU_OPTIONS
    compiling._known.cache_clear()
    monkeypatch.setattr(compiling, "CPU_OPTIONS", {"xla_cpu_no_such_option": ""})
    assert compiling.options() == {}
    assert compiling.jit(jnp.negative)(2.0) == -2.0


def test_options_of_a_cpu_are_for_a_cpu(asked_anew, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.options() == {}


def test_options_are_those_of_the_target_not_of_this_process():
    with aimed_at("tpu"):
        assert compiling.options() == compiling.TPU_OPTIONS  # untried: there is no TPU to try them on
    with aimed_at("gpu"):
        assert compiling.options() == {}
    assert compiling.options() == compiling.CPU_OPTIONS


def test_jit_takes_the_settings_of_jax_jit():
    given = jnp.ones(3)
    np.testing.assert_array_equal(compiling.jit(lambda x, sign: sign * x, donate_argnums=0, static_argnums=1)(given, -1), -1)
    assert given.is_deleted()
