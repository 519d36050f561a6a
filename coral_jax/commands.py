"""How commands start and fail: one line on stderr that says what to type instead, exit status 1."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from coral_jax.config import base
from coral_jax.runtime.errors import NonFiniteError, nearest
from coral_jax.runtime.files import user_cache


def run(main: Callable[..., None], words: int = 0) -> None:
    """Run a command: parse the flags, call main(); user mistakes end it with one line, bugs with their traceback.

    words: how many arguments that are no flags the command takes at most; main gets those that were given.
    """

    def parsed_main(argv: list[str]) -> None:
        if len(argv) > 1 + words:
            _fail(f"unexpected argument {argv[1 + words]!r}; flags are written --name=value, see --help")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # the libraries below tell their whole life at INFO
        keep_compiled_programs()
        try:
            main(*argv[1:])
        except (ValueError, OSError, NonFiniteError) as error:
            logging.vlog(1, "traceback", exc_info=True)  # shown by --verbosity=1
            _fail(str(error))
        except KeyboardInterrupt:
            print("\nstopped; type the same command to go on", file=sys.stderr)
            sys.exit(130)

    app.run(parsed_main, flags_parser=_parse)


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that the next run starts at once."""
    if jax.config.jax_compilation_cache_dir is None:  # JAX_COMPILATION_CACHE_DIR goes first
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # jax's own second leaves out dozens of small programs, which together take several.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def config_name(path_and_arg: str) -> str:
    """Name of a config file given as PATH or PATH:ARG; ValueError with the nearest one if there is no such file."""
    path = Path(path_and_arg.partition(":")[0])
    if path.is_file():
        return path.stem
    known = {str(other.with_suffix("")): str(other) for other in sorted(path.parent.glob("*.py"))}
    close = difflib.get_close_matches(str(path.with_suffix("")), known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else "give one of configs/*.py, from the repository's folder"
    raise ValueError(f"there is no config file {path}; {hint}")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            _fail(f"--{error.flagname} without a config file; add --config=configs/surprised.py")
        _fail(f"unknown flag --{error.flagname}{nearest(error.flagname, flags.FLAGS)} (--help lists all)")
    except AttributeError as error:  # how ml_collections says that a config has no such field
        name = str(error).strip("\"'\\ ").split("\n")[0].split("\\n")[0].strip("\"'\\ ")
        fields = list(base())
        _fail(f"the config has no field {name!r}{nearest(name, fields)} (fields: {', '.join(fields)})")
    except (flags.Error, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # An error inside a config file arrives as its whole traceback; its last line says what is wrong.
        line = lines[-1] if "Traceback" in str(error) else lines[0]
        _fail(re.sub(r"^\w*Error: ", "", line))


def _fail(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)
