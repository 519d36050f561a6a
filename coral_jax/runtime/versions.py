"""Which versions computed a result."""

import importlib.metadata
import platform

import jax


def versions() -> dict[str, str]:
    """Versions of this program, of what it computes with, and the device."""
    found = {}
    for name in ("coral_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # run from the source folder
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
