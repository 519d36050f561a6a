"""The platform that programs are made for: this process's, or that of devices which are not here.

What is fastest on a CPU costs a TPU more than half of its time, and the other way round, so operations have forms
(`coral_jax.models.ops`, `coral_jax.blend`) and the compiler has options (`coral_jax.runtime.compiling`) for each platform.
All ask here.  All forms compute the same, to rounding.
"""

from contextlib import AbstractContextManager

import jax

PLATFORMS = ("cpu", "gpu", "tpu")
_chosen = jax.make_user_context(None)  # jax traces anew inside: its caches know of it


def platform() -> str:
    """Platform that what is traced now will run on: that of this process's devices, unless inside `aimed_at`."""
    return _chosen.value or jax.default_backend()


def aimed_at(platform: str) -> AbstractContextManager:
    """Inside, programs are traced for one of `PLATFORMS`: to compile them for devices which are not here."""
    return _chosen(platform)
