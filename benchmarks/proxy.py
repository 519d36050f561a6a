"""What `loss_resolution` costs in quality and saves in time: losses at the last edited layer's resolution, or in full.

    python -m benchmarks.proxy --prompts=surprised,"blue eyes"

On toons, whose last edited layer is the image's, only the layers through --resolution are edited, in both forms.
"""

import time

import jax
from absl import flags

from benchmarks import PROMPTS, alone
from coral_jax import commands
from coral_jax.artifact import Edit
from coral_jax.config import make, resolve
from coral_jax.domains import Domain, load_domain
from coral_jax.runtime.numerics import key_of
from coral_jax.toons import truth

_METHOD = flags.DEFINE_string("method", "attention_mapper", "method to train")
_PROMPTS = flags.DEFINE_list("prompts", PROMPTS, "prompts to train on")
_RESOLUTION = flags.DEFINE_integer("resolution", 32, "last resolution that is edited")
_FACES = flags.DEFINE_integer("faces", 104, "number of faces to measure on")


def measured(domain: Domain, prompt: str, proxy: bool) -> dict:
    """Train one edit of the lower layers, with losses on their image or on the whole one; seconds are of the steps alone."""
    chosen = resolve(make(prompt, f"method={_METHOD.value}"), domain.settings_of(prompt))
    full = domain.frozen(prompt)
    lower = full._replace(generator=full.generator.lower(_RESOLUTION.value))
    init_key, key = jax.random.split(key_of(0))
    state = alone.begin(chosen.settings, lower, init_key)  # an editor and masks of the lower layers, for both
    step = alone.stepper(chosen.settings, lower if proxy else full, key)
    state, _ = step(state)
    begun = time.monotonic()
    for _ in range(1, chosen.settings.steps):
        state, _ = step(state)
    jax.block_until_ready(state)
    seconds = time.monotonic() - begun
    trainables = alone.state_of(state).trainables
    edit = Edit(prompt, domain, domain.default_segmenter, chosen.settings, 0, chosen.tau, trainables)
    found = truth.measure(domain, prompt, edit.apply, _FACES.value, truth.SELECTION_SEED)
    return {"prompt": prompt, "loss_resolution": _RESOLUTION.value if proxy else None, "seconds": seconds} | found


def main() -> None:
    """Train both forms on each prompt, one after the other, and print what they reach."""
    domain = load_domain("toons")
    for prompt in _PROMPTS.value:
        for proxy in (False, True):
            print(measured(domain, prompt, proxy), flush=True)


if __name__ == "__main__":
    commands.run(main)
