"""What all commands share: where compiled programs are kept, and which."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from coral_jax import commands


@pytest.fixture
def no_cache_folder():
    """JAX as it is where nobody has set it up."""
    folder = jax.config.jax_compilation_cache_dir
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    compilation_cache.reset_cache()


def test_compiled_programs_are_kept_in_the_users_folder(no_cache_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands.keep_compiled_programs()
    jax.jit(lambda x: 3.0 * x + 1.0)(2.0)
    assert any(entry.name.startswith("jit") for entry in (tmp_path / "coral_jax" / "compiled").iterdir())


def test_a_folder_that_the_user_gave_goes_first(no_cache_folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))  # as JAX_COMPILATION_CACHE_DIR sets it
    commands.keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given")


def test_small_programs_are_kept_too(no_cache_folder, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "2")
    commands.keep_compiled_programs()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.0  # left to the user
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    commands.keep_compiled_programs()
    assert 0 < jax.config.jax_persistent_cache_min_compile_time_secs < 1
