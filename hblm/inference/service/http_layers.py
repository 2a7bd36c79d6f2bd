"""Layers around the service's application: the limit of bodies, and the count of requests."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hblm.console import log
from hblm.inference.service.http_messages import RefusedError, error_response

GONE = 499  # the client closed the connection before its answer; no code of HTTP, but usual in logs
_JSON = "application/json"


class BodyLimit:
    """Reads the body of each POST up to a limit before the application runs, which then gets it as one."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        """Take the application, the most bytes of a body, and the seconds in which it must arrive."""
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(Headers(scope=scope), receive), self._seconds)
        except asyncio.TimeoutError:
            error = RefusedError(408, f"the body did not arrive within {self._seconds:g} seconds")
            await error_response(error)(scope, receive, send)
        except RefusedError as error:
            await error_response(error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _after(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the body; None if the client is gone.

        Raises:
            RefusedError: it is larger than the limit, or not announced as JSON. It is read no further.
        """
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON:  # a browser sends other types from any web page without asking this server first
            given = f"content-type {kind:.100}" if kind else "no content-type"
            raise RefusedError(415, f"{given}; send JSON with the header Content-Type: {_JSON}")
        refusal = RefusedError(413, f"the body has more than {self._most:,} bytes, the most in one request")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise refusal
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._most:
                raise refusal
            if not message.get("more_body", False):
                return bytes(body)


def _after(body: bytes, receive: Receive) -> Receive:
    """Return a function that gives the whole body first, then what follows, which is the disconnection."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return first.pop() if first else await receive()

    return next_message


class Measured:
    """Counts and times requests, logs them where wanted, and answers those that fail with code 500."""

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, paths: frozenset[str], access_log: bool
    ) -> None:
        """Take the application, where metrics go, the paths with metrics of their own, and whether to log."""
        self._app, self._paths, self._access_log = app, paths, access_log
        self._requests = Counter(
            "hblm_requests",
            "Requests by path and code; 499: the client left.",
            ("path", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "hblm_request_seconds", "Seconds from a request to its answer.", ("path",), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, code = time.perf_counter(), GONE

        async def note(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            if code == GONE:
                failure = RefusedError(500, "internal error; the service's log has its cause")
                await error_response(failure)(scope, receive, note)
        seconds = time.perf_counter() - started
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._requests.labels(path, str(code)).inc()
        self._seconds.labels(path).observe(seconds)
        if self._access_log:
            host = (scope.get("client") or ["-"])[0]
            log.info("%s %s %s %d %.1f ms", host, scope["method"], scope["path"], code, 1000 * seconds)
