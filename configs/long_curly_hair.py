"""Long curly hair: python -m coral_jax.train --config=configs/long_curly_hair.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "long curly hair"; arg is the text after the colon on the command line."""
    return make("long curly hair", arg)
