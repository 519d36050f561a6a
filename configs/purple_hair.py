"""Purple hair: python -m coral_jax.train --config=configs/purple_hair.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "purple hair"; arg is the text after the colon on the command line."""
    # The masks of hair settle lower than others, where the usual threshold would drop part of them.
    return make("purple hair", arg, tau=0.4)
