"""Prepare a domain for StyleCLIP's global directions: python -m coral_jax.global_directions --domain=toons"""

import sys

from absl import flags

from coral_jax import commands
from coral_jax.domains import load_domain
from coral_jax.global_directions.relevance import cache_folder, relevances

_DOMAIN = flags.DEFINE_string("domain", "toons", "Domain to prepare.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")


def main() -> None:
    """Find what the style channels of --domain do, and keep it in the user's cache folder; training then reads it."""
    domain = load_domain(_DOMAIN.value, _WEIGHTS_DIR.value)
    relevances(domain)
    print(f"{cache_folder(domain)} holds what styleclip_global needs of {domain.name}", file=sys.stderr)


if __name__ == "__main__":
    commands.run(main)
