"""Time of applying an edit: seconds per image and images per second of the compiled program, for a batch of faces.

    python -m benchmarks.edit --size=1024 --batch=8 --dtype=bfloat16 --json=runs/edit.json

Random weights of published sizes, or --domain.  The program is compiled once for its batch, and every further batch, alpha
and tau runs in it.  Memory and rates are as in `benchmarks.step`.
"""

import functools

import jax
import numpy as np
from absl import flags

from benchmarks import measure
from benchmarks.networks import SIZES, random_domain
from coral_jax import commands
from coral_jax.config import Settings
from coral_jax.domains import load_domain
from coral_jax.methods import METHODS, get_method
from coral_jax.models.precision import COMPUTE_DTYPES, cast_all
from coral_jax.runtime.files import write_json
from coral_jax.runtime.numerics import key_of
from coral_jax.step import apply_edit, init_state

_SIZE = flags.DEFINE_enum("size", "256", [str(size) for size in SIZES], "resolution of the random FFHQ-sized generator")
_DOMAIN = flags.DEFINE_string("domain", None, "measure this domain's networks instead of random ones")
_BATCH = flags.DEFINE_integer("batch", 8, "faces in one program", lower_bound=1)
_METHOD = flags.DEFINE_enum("method", "attention_mapper", list(METHODS), "method to measure")
_DTYPE = flags.DEFINE_enum("dtype", "float32", COMPUTE_DTYPES, "type that the generator computes in")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs; the median counts", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file to write the result to")
_PROFILE = flags.DEFINE_string("profile", None, "folder for a jax.profiler trace of one batch (view with xprof)")


def main() -> None:
    """Measure, print, write the JSON."""
    method = get_method(_METHOD.value)
    if _DOMAIN.value:
        frozen = load_domain(_DOMAIN.value).frozen("surprised")
    else:
        frozen = random_domain(int(_SIZE.value), method.needs_segments)
    frozen = cast_all(frozen, _DTYPE.value)
    trainables = jax.jit(init_state)(Settings(_METHOD.value, _BATCH.value), frozen, key_of(0)).trainables
    generator = frozen.generator
    frozen = frozen._replace(clip=None, identity=None, text=None)  # as `artifact.Edit.draw` leaves them out
    shape = (_BATCH.value, generator.n_latent, generator.w_dim)
    w_plus = np.random.default_rng(0).standard_normal(shape, np.float32)
    apply = jax.jit(functools.partial(apply_edit, method))
    arguments = (frozen, trainables, w_plus, 1.0, 0.85)
    found = measure.measure(apply, arguments, lambda _, same: same, _REPEATS.value, _PROFILE.value)
    rate = measure.convolution_rate(_DTYPE.value)
    seconds = found.pop("seconds")
    result = {
        "domain": _DOMAIN.value, "size": generator.size, "batch": _BATCH.value, "method": _METHOD.value,
        "dtype": _DTYPE.value, "device": jax.devices()[0].device_kind, "seconds_per_image": seconds / _BATCH.value,
        "images_per_second": _BATCH.value / seconds, **found, "convolution_flops_per_second": rate,
        "rate_share": found["flops"] / seconds / rate,
    }  # fmt: skip
    if _JSON.value:
        write_json(_JSON.value, result)
    print(f"{result['seconds_per_image']:.4g} s an image, {result['images_per_second']:.4g} images/s, "
          f"compiled in {result['seconds_compile']:.1f} s, peak {result['peak_bytes'] / 1e9:.2f} GB, "
          f"{result['rate_share']:.2f} of the convolution's rate")  # fmt: skip


if __name__ == "__main__":
    commands.run(main)
