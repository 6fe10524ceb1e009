"""Who may call the internal API: holders of a service token. Closed by default: only the paths in OPEN need none."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from payments_service.parsers import ServiceToken
from payments_service.web import problem

# Probes, figures and the documentation hold no tenant's data; this listener is not reachable from the internet.
OPEN = ("/livez", "/readyz", "/metrics", "/openapi.yaml", "/docs")


class ServiceTokens:
    """The digests of the tokens; the tokens themselves are not kept."""

    def __init__(self, tokens: Iterable[ServiceToken]) -> None:
        self._digests = {token.name: _digest(token.token.encode()) for token in tokens}

    def caller(self, authorization: bytes) -> str | None:
        """The name of the caller that an `Authorization` header proves, else None. Every digest is compared, in
        constant time."""
        scheme, _, token = authorization.partition(b" ")
        presented = _digest(token.strip())
        found = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(presented, digest):
                found = name
        return found if scheme.lower() == b"bearer" else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class Authenticate:
    """ASGI middleware: 401 for whoever proves nothing, whatever the path."""

    def __init__(self, app: ASGIApp, tokens: ServiceTokens) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope["path"]):
            caller = self.tokens.caller(_authorization(scope))
            if caller is None:
                answer = problem(
                    401,
                    "unauthorized",
                    "Send `Authorization: Bearer <token>` with one of SERVICE_TOKENS.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/docs/")


def _authorization(scope: Scope) -> bytes:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    return values[0] if len(values) == 1 else b""
