"""What keeps other pages, other users and other files out of the studio."""

import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_JSON = 2 << 20  # bytes of a request: a recipe with eight brushes is a tenth of it
MOST_UPLOAD = 30 << 20  # bytes of a photograph
_PATIENT = 4  # times as much is received, and thrown away
SESSION = "x-studio-session"  # header of a page's token; no other web page can send it here

_HEADERS = {
    # Everything comes from here; pictures also from the page's own memory.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: hosts by name, so that a foreign name that leads here is refused, and headers on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        """hosts: names by which the studio may be called; None: any, where it listens to a whole network."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if self._hosts is not None and host_of(Headers(scope=scope).get("host", "")) not in self._hosts:
            await with_headers({"type": "http.response.start", "status": 421, "headers": []})
            await with_headers({"type": "http.response.body", "body": b"this is not the studio's name"})
            return
        await self._app(scope, receive, with_headers)


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = header.rpartition(":")
    return (name if port.isdigit() and name else header).strip("[]").lower()


def hosts_for(host: str) -> frozenset[str] | None:
    """Names of a studio that listens at `host`."""
    if host in ("0.0.0.0", "::", ""):
        return None
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()})


async def read_body(request: Request, most: int) -> bytes:
    """The content of a request; HTTPException for more than `most` bytes, of which no more are kept."""
    parts, count = [], 0
    async for part in request.stream():
        count += len(part)
        if count <= most:
            parts.append(part)
        elif count > _PATIENT * most:
            break
    if count > most:  # said when all has come: who still sends would not hear it
        raise HTTPException(413, f"more than {most >> 20} MB; give a smaller file")
    return b"".join(parts)


async def read_object(request: Request) -> dict:
    """The JSON object in a request; ValueError for anything else."""
    try:
        content = json.loads(await read_body(request, MOST_JSON) or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("the request is no JSON object")
    return content
