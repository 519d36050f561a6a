"""Lipstick: python -m coral_jax.train --config=configs/lipstick.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "lipstick"; arg is the text after the colon on the command line."""
    return make("lipstick", arg)
