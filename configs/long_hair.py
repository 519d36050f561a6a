"""Long hair: python -m coral_jax.train --config=configs/long_hair.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "long hair"; arg is the text after the colon on the command line."""
    # Long hair shows late, where much has changed at once: at the usual weight the masks close before.
    return make("long hair", arg, lambda_area=2e-5)
