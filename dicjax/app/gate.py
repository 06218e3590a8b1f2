"""The gate of the server, through which only the browser that was opened gets in."""

import secrets
from collections.abc import Callable, Sequence
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

    The browser is opened with a token in its address, which it exchanges for a cookie
    that it sends to this server alone. A token is exchanged once. All of these are
    refused:

    - another host than `hosts` at `port`, as after a change of DNS;
    - another origin, which is another site or another server of this computer;
    - a request without the cookie. If it has a token that was exchanged before,
      `announce` is called with a new address.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        port: int,
        announce: Callable[[str], None] = lambda address: None,
    ):
        self.app = app
        self.cookie = f"dicjax-{port}"  # browsers give cookies to all ports
        self._key = secrets.token_urlsafe(24)  # what the cookie holds
        self._announce = announce
        self._base = f"http://{hosts[0]}:{port}"
        self._hosts = {f"{host}:{port}" for host in hosts}
        self._token: str | None = secrets.token_urlsafe(24)
        self._spent: list[str] = []

    def address(self) -> str:
        """An address that opens the app once; it contains a token."""
        self._token = self._token or secrets.token_urlsafe(24)
        return f"{self._base}/?{urlencode({PARAMETER: self._token})}"

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
        headers, given = asked.headers, asked.query_params.get(PARAMETER)
        host = headers.getlist("host")
        if len(host) != 1 or host[0] not in self._hosts:
            return Refusal(400, "dicjax has no such host.")
        if any(origin != f"http://{host[0]}" for origin in headers.getlist("origin")):
            return Refusal(403, "dicjax answers its own pages only.")
        if self._opens(asked):
            return None
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Refusal(403, "dicjax answers its own pages only.")
        if _are_same(asked.cookies.get(self.cookie), self._key):
            return None
        if any([_are_same(given, token) for token in self._spent]):
            if self._token is None:
                self._announce(self.address())
            return Refusal(
                403,
                "This address has opened the app before, and does so once: open the "
                "new address that dicjax has printed in the terminal.",
            )
        return Refusal(
            403,
            "This address lacks the token of the app: open the whole address that "
            "dicjax printed in the terminal.",
        )

    def _opens(self, asked: HTTPConnection) -> bool:
        """Whether it has a token that nobody has exchanged, to ask for a page."""
        is_page = asked.scope.get("method") in ("GET", "HEAD")
        return is_page and _are_same(asked.query_params.get(PARAMETER), self._token)

    def _admitted(self, asked: HTTPConnection) -> Response:
        """Takes the token from the address, which people share, and gives a cookie."""
        left = [x for x in asked.query_params.multi_items() if x[0] != PARAMETER]
        # Of its slashes, one: two would be the address of another server.
        path = "/" + asked.url.path.lstrip("/\\")
        response = RedirectResponse(f"{path}?{urlencode(left)}" if left else path, 303)
        response.headers["Cache-Control"] = "no-store"
        # Programs that only look ahead ask for the head.
        if self._opens(asked) and asked.scope["method"] == "GET":
            self._spent.append(asked.query_params[PARAMETER])
            self._token = None
            response.set_cookie(
                self.cookie, self._key, httponly=True, samesite="strict"
            )
        return response


def _are_same(given: str | None, secret: str | None) -> bool:
    if given is None or secret is None:
        return False
    return secrets.compare_digest(given.encode(), secret.encode())
