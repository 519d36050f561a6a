"""What is computed takes no type and no transfer by accident; `conftest` refuses accidental ranks in every test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import run_config
from tiny import frozen, w_plus

from coral_jax.config import Settings
from coral_jax.methods import ABLATIONS, METHODS, get_method
from coral_jax.runtime.progress import Progress
from coral_jax.step import apply_edit, edit_loss, init_state, observe
from coral_jax.training.loop import train


@pytest.mark.parametrize("name", [*METHODS, *ABLATIONS])
def test_losses_and_edits_promote_no_types(name):
    """In float32; in bfloat16 masks and styles are of float32 on purpose."""
    networks, method, settings = frozen(), get_method(name), Settings(name, batch_size=2)
    state = init_state(settings, networks, jax.random.key(0))
    with jax.numpy_dtype_promotion("strict"):
        original = jax.eval_shape(lambda f, w: observe(f, w, method), networks, w_plus())
        loss = jax.grad(lambda t, f, o: edit_loss(t, f, o, settings), has_aux=True)
        gradients, metrics = jax.eval_shape(loss, state.trainables, networks, original)
        drawn = jax.eval_shape(lambda f, t, w: apply_edit(method, f, t, w, 0.8, 0.5), networks, state.trainables, w_plus())
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, metrics, drawn))} == {jnp.dtype("float32")}


def test_ranks_are_never_promoted():
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_the_loop_moves_nothing_between_host_and_device_by_accident(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(Progress, "show", lambda *_: jnp.add(jnp.ones(3), np.ones(3, np.float32)))
    with pytest.raises(Exception, match="[Dd]isallowed host-to-device transfer"):
        train(run_config(weights_dir), tmp_path / "run")
    jnp.add(jnp.ones(3), np.ones(3, np.float32))  # the guard ends with the loop
