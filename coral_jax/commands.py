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
from coral_jax.runtime.errors import is_full, line_of, nearest
from coral_jax.runtime.files import expand, user_cache
from coral_jax.runtime.numerics import pinned


def run(main: Callable[..., None], words: int = 0) -> None:
    """Run a command: parse the flags, call main(); user mistakes end it with one line, bugs with their traceback.

    words: how many arguments that are no flags the command takes at most; main gets those that were given.
    """

    def parsed_main(argv: list[str]) -> None:
        if len(argv) > 1 + words:
            _fail(f"unexpected argument {argv[1 + words]!r}; flags are written --name=value, see --help")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # the libraries below tell their whole life at INFO
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without umlauts must not end an evaluation
        try:
            keep_compiled_programs()
            with pinned():
                main(*argv[1:])
        except KeyboardInterrupt:
            print("\nstopped; type the same command to go on", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = line_of(error)
            if line is None:
                raise
            logging.vlog(1, "traceback", exc_info=True)  # shown by --verbosity=1
            if is_full(error):  # at exit, libraries would write what is left, and fail with tracebacks
                _say(line)
                os._exit(1)
            _fail(line)

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
        return flags.FLAGS([_at_home(argument) for argument in argv])
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            _fail(f"--{error.flagname} without a config file; add --config=configs/surprised.py")
        _fail(f"unknown flag --{error.flagname}{nearest(error.flagname, flags.FLAGS)} (--help lists all)")
    except AttributeError as error:  # how ml_collections says that a config has no such field
        name = str(error).strip("\"'\\ ").split("\n")[0].split("\\n")[0].strip("\"'\\ ")
        fields = list(base())
        _fail(f"the config has no field {name!r}{nearest(name, fields)} (fields: {', '.join(fields)})")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # An error inside a config file arrives as its whole traceback; its last line says what is wrong.
        line = lines[-1] if "Traceback" in str(error) else lines[0]
        _fail(re.sub(r"^\w*Error: ", "", line))


def _at_home(argument: str) -> str:
    """--flag=~/path as a shell would write it, had there been a space before the path."""
    flag, path = re.fullmatch(r"(--?[\w.]+=)?(.*)", argument, re.DOTALL).groups(default="")
    return flag + str(expand(path)) if re.match(r"~([\w.-]*/|$)", path) else argument


def _fail(message: str) -> None:
    _say(message)
    sys.exit(1)


def _say(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
