"""Learn an edit from a prompt: python -m coral_jax.train --config=configs/surprised.py"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from coral_jax import commands
from coral_jax.config import base, prompts_of
from coral_jax.training.loop import Run, train, train_all
from coral_jax.training.partition import join

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, such as configs/surprised.py or configs/surprised.py:method=segment_global."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; if not given runs/<config>, or runs/<config>_<domain> for a domain other than toons."
)
_HOSTS = flags.DEFINE_string(
    "hosts", None, "One process of several: auto (TPU pods, Slurm, Open MPI), or ADDRESS:PORT,PROCESSES,INDEX."
)


def main() -> None:
    """Train the edit of --config in --workdir, or each of --config.prompts in a folder of its own in there."""
    if not flags.FLAGS["config"].present:
        raise ValueError("no config; type python -m coral_jax.train --config=configs/surprised.py")
    if _HOSTS.value:
        join(_HOSTS.value)
    config = _CONFIG.value
    name = commands.config_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    if config.domain != base().domain:
        name = f"{name}_{config.domain}"
    workdir = Path(_WORKDIR.value or Path("runs") / name)
    if config.prompts is None:
        train(config, workdir)
    else:
        train_all(config, [Run(prompt, workdir / folder) for folder, prompt in prompts_of(config.prompts).items()])


if __name__ == "__main__":
    commands.run(main)
