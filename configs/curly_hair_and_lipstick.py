"""Curly hair and lipstick: python -m coral_jax.train --config=configs/curly_hair_and_lipstick.py

Another method: put :method=segment_global behind the file's name, and add a --workdir of its own.
"""

from coral_jax.config import make


def get_config(arg=""):
    """The config of the prompt "curly hair and lipstick"; arg is the text after the colon on the command line."""
    # Two edits take longer: 360 steps make 43 % of the faces curly, 700 make 76 %.
    return make("curly hair and lipstick", arg, steps=700, learning_rate=0.05)
