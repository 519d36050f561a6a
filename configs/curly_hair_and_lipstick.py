"""Curly hair and lipstick: python -m coral_jax.train --config=configs/curly_hair_and_lipstick.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "curly hair and lipstick"; arg is the text after the colon on the command line."""
    return make("curly hair and lipstick", arg)
