"""The gate of the server, through which only the browser that was opened gets in."""

import secrets
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


PARAMETER = "token"
POLICY = 1008  # code of a socket that is refused
# Nobody shows a page in a frame, sniffs its type, or learns its address.
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refusal(NamedTuple):
    status: int
    why: str


class Gate:
    """An application behind a check of every request and every socket.

    The browser is opened with a token in its address. It then holds the token in a
    cookie, which it sends to this server alone. All of these are refused:

    - another host than `hosts` at `port`, as after a change of DNS;
    - another origin, which is another site or another server of this computer;
    - a request without the token.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], port: int):
        self.app = app
        self.token = secrets.token_urlsafe(24)
        self.cookie = f"dicjax-{port}"  # browsers give cookies to all ports
        self._hosts = {f"{host}:{port}" for host in hosts}

    def address(self, base: str) -> str:
        """The address that opens the app; it contains the token."""
        return f"{base}/?{urlencode({PARAMETER: self.token})}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        asked = HTTPConnection(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(asked)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY})
        elif refusal is not None:
            response = PlainTextResponse(refusal.why, refusal.status)
            await response(scope, receive, send_guarded)
        elif PARAMETER in asked.query_params and scope.get("method") in ("GET", "HEAD"):
            await self._admitted(asked)(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, asked: HTTPConnection) -> Refusal | None:
        headers = asked.headers
        host = headers.getlist("host")
        if len(host) != 1 or host[0] not in self._hosts:
            return Refusal(400, "dicjax has no such host.")
        if any(origin != f"http://{host[0]}" for origin in headers.getlist("origin")):
            return Refusal(403, "dicjax answers its own pages only.")
        if self._is_token(asked.query_params.get(PARAMETER)):
            return None
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Refusal(403, "dicjax answers its own pages only.")
        if self._is_token(asked.cookies.get(self.cookie)):
            return None
        return Refusal(
            403,
            "This address lacks the token of the app: open the whole address that "
            "dicjax printed in the terminal.",
        )

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(
            given.encode(), self.token.encode()
        )

    def _admitted(self, asked: HTTPConnection) -> Response:
        """Moves the token from the address, which people share, to a cookie."""
        left = [x for x in asked.query_params.multi_items() if x[0] != PARAMETER]
        # Of its slashes, one: two would be the address of another server.
        path = "/" + asked.url.path.lstrip("/\\")
        response = RedirectResponse(f"{path}?{urlencode(left)}" if left else path, 303)
        response.headers["Cache-Control"] = "no-store"
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return response
