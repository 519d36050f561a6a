"""Makeup and afro hairstyle: python -m coral_jax.train --config=configs/makeup_and_afro.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "makeup and afro hairstyle"; arg is the text after the colon on the command line."""
    return make("makeup and afro hairstyle", arg)
