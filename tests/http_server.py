"""A web server on this machine that publishes files, and can be made to cut, change and hide them."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Sent(NamedTuple):
    """One answer with a file's bytes: how many were sent, and of which range."""

    path: str
    range: str | None
    count: int


class Server:
    """Serves `files`, bytes by path, at `url`, as the web and as a Hugging Face hub; `sent` tells what it gave.

    cut: by path, after how many bytes each next answer breaks off. ranges, tags: whether it knows Range and ETag.
    version: part of every ETag.
    """

    def __init__(self):
        self.files, self.cut, self.sent = {}, {}, []
        self.ranges, self.tags, self.version = True, True, "1"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(head=True)

        def do_GET(self):
            self.answer(head=False)

        def answer(self, head):
            if self.path not in server.files:
                self.send_error(404)
                return
            content, start = server.files[self.path], 0
            tag = f'"{hashlib.sha256(server.version.encode() + content).hexdigest()[:16]}"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and server.ranges and self.headers.get("If-Range") in (None, tag):
                start = int(asked[1])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            body = content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/html" if self.path.endswith(".html") else "application/octet-stream")
            self.send_header("X-Repo-Commit", "0" * 40)  # what tells a Hugging Face hub
            if server.tags:
                self.send_header("ETag", tag)
            if not head:
                body = body[: server.cut[self.path].pop(0)] if server.cut.get(self.path) else body
                server.sent.append(Sent(self.path, self.headers.get("Range"), len(body)))
            self.end_headers()
            if not head:
                self.wfile.write(body)

    return Handler
