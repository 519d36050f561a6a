"""Errors that users can cause, the line that explains each, and hints for them."""

import difflib
import errno
import os
from collections.abc import Iterable

import jax


class NonFiniteError(ArithmeticError):
    """A loss or a weight stopped being a number."""


_LESS_MEMORY = (
    "training needs less with --config.microbatch_size=1, with fewer prompts at once, a lower --config.loss_resolution, or "
    "--config.dtype=bfloat16; JAX_PLATFORMS=cpu takes the computer's memory, not the GPU's"
)
_OF_PATHS = {
    errno.EACCES: "this user may not read or write it; give another path, or change its permissions",
    errno.EPERM: "this user may not read or write it; give another path, or change its permissions",
    errno.EROFS: "its file system is read-only; give another path",
    errno.ENOENT: "there is no such file or folder",
    errno.EISDIR: "this is a folder; give a file",
    errno.ENOTDIR: "a part of this path is a file; give a folder",
    errno.EEXIST: "this is a file already; give a folder",
    errno.ENAMETOOLONG: "a part of this path is too long; give a shorter one",
}


def line_of(error: Exception) -> str | None:
    """What the user should read of an error, in one line; None for a bug, whose traceback is needed."""
    text = str(error)
    if is_full(error):
        where = getattr(error, "filename", None)
        place = f"the disk of {where}" if where else "a disk"
        return f"{place} is full, or this user's share of it; free some space, and type the same command to go on"
    if isinstance(error, MemoryError) or (isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in text):
        return f"out of memory ({text or 'of this computer'}); {_LESS_MEMORY}"
    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_PATHS:
        return f"{error.filename}: {_OF_PATHS[error.errno]}"
    if isinstance(error, ValueError | OSError | NonFiniteError):
        return text
    if isinstance(error, RuntimeError | AssertionError):  # which of them jax raises depends on the plugin that is missing
        return no_device()
    return None


def is_full(error: Exception) -> bool:
    """Whether something could not be written for want of space; libraries have errors of their own kinds for it."""
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def no_device() -> str | None:
    """Why jax finds no device to compute on, and what to do; None if it finds one."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = f"JAX_PLATFORMS={jax.config.jax_platforms}" if jax.config.jax_platforms else "any kind"
        reason = f" ({error})" if str(error) else ""
        return (
            f"jax finds no device of {asked}{reason}; install jax for it, such as pip install "
            '"jax[cuda13]", or unset JAX_PLATFORMS to take what there is'
        )
    return None


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`, as text for an error: '; did you mean "x"?', or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
