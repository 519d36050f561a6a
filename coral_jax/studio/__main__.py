"""Open the studio: python -m coral_jax.studio, then the address that it prints, in a browser."""

import socket
import sys
from pathlib import Path

from absl import flags

from coral_jax import commands

LOCAL = ("127.0.0.1", "localhost", "::1")


def main() -> None:
    """Serve the studio until it is interrupted."""
    try:
        import uvicorn

        from coral_jax.studio.server import make_app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise ValueError('the studio needs Starlette and uvicorn: pip install -e ".[studio]"') from error
    host, port = flags.FLAGS.host, flags.FLAGS.port
    if host not in LOCAL:
        print(f"note: listening on {host}: everyone who reaches it can look at and train edits here", file=sys.stderr)
    listening = listen(host, port)
    place = f"[{host}]" if ":" in host else host
    print(f"the studio is at http://{place}:{port} (Ctrl+C ends it)", file=sys.stderr, flush=True)
    app = make_app(Path(flags.FLAGS.runs), Path(flags.FLAGS.photos), flags.FLAGS.weights_dir, host)
    with listening:
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ValueError where another program does, and for an address that is not this computer's."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen at {host}:{port} ({error.strerror}); give another --port or --host") from error


if __name__ == "__main__":
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets the whole network in.")
    flags.DEFINE_integer("port", 7860, "Port to listen at.", 1, 65535)
    flags.DEFINE_string("runs", "runs", "Folder of the edits, and of what is learned here.")
    flags.DEFINE_string("photos", "photos", "Folder of the photos of coral_jax.photo.")
    flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")
    commands.run(main)
