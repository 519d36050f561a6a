"""Learn an edit from a prompt: python -m coral_jax.train --config=configs/surprised.py"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from coral_jax import commands
from coral_jax.training import train

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, such as configs/surprised.py or configs/surprised.py:method=segment_global."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<name of the config file> if not given.")


def main() -> None:
    """Train the edit of --config in --workdir."""
    if not flags.FLAGS["config"].present:
        raise ValueError("no config; type python -m coral_jax.train --config=configs/surprised.py")
    name = commands.config_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    train(_CONFIG.value, Path(_WORKDIR.value or Path("runs") / name))


if __name__ == "__main__":
    commands.run(main)
