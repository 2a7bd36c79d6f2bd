"""The service's application: POST /predict, GET /health, /taxonomy, /metrics, /docs and /openapi.json."""

from __future__ import annotations

import asyncio
import math
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from hblm.inference.service.batching import QueueFullError
from hblm.inference.service.http_layers import GONE, BodyLimit, Measured
from hblm.inference.service.http_messages import (
    ErrorResponse,
    PredictRequest,
    PredictResponse,
    RefusedError,
    error_response,
    json_response,
    refusal_of,
)
from hblm.inference.service.service import Service, documents_of
from hblm.version import __version__

if TYPE_CHECKING:
    from hblm.inference.decision import Decision

_PATHS = frozenset({"/predict", "/health", "/taxonomy", "/metrics", "/docs", "/openapi.json"})


def make_app(service: Service) -> FastAPI:
    """Return the application of a service."""
    app = FastAPI(title="hblm", version=__version__, docs_url=None, redoc_url=None)
    endpoints = _Endpoints(service, app)
    errors: Any = {
        code: {"model": ErrorResponse, "description": why}
        for code, why in {
            400: "not JSON",
            408: "the body did not arrive in time",
            413: "too many texts, or too long ones",
            415: "no Content-Type: application/json",
            422: "a field is wrong",
            429: "the queue is full; Retry-After says when to try again",
            503: "the model is being loaded, or did not answer in time",
        }.items()
    }
    app.post("/predict", response_model=PredictResponse, responses=errors)(endpoints.predict)
    app.get("/health", responses={503: {"description": "loading or stopping"}})(endpoints.health)
    app.get("/taxonomy", responses={503: errors[503]})(endpoints.taxonomy)
    app.get("/metrics", response_class=Response)(endpoints.metrics)
    app.get("/docs", include_in_schema=False)(endpoints.docs)
    app.get("/", include_in_schema=False)(lambda: RedirectResponse("docs"))
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    app.add_middleware(BodyLimit, most=service.config.max_body, seconds=service.config.timeout)
    app.add_middleware(
        Measured, registry=service.registry, paths=_PATHS, access_log=service.config.access_log
    )
    return app


class _Endpoints:
    """What the paths of the service do."""

    def __init__(self, service: Service, app: FastAPI) -> None:
        self._service, self._app, self._config = service, app, service.config
        self._taxonomy = b""

    async def predict(self, request: Request, wanted: PredictRequest) -> Response:
        """Predict paths for one text or several."""
        service, config = self._service, self._config
        service.require_ready()
        texts = wanted.within(most_texts=config.max_texts, most_characters=config.max_characters)
        decision = service.decision(wanted)
        documents = await self._answered(request, texts, decision, wanted.all_scores) if texts else []
        if documents is None:
            return Response(status_code=GONE)
        service.texts.inc(len(texts))
        return json_response({"documents": documents})

    async def _answered(
        self, request: Request, texts: list[str], decision: Decision, all_scores: bool
    ) -> list[Any] | None:
        """Return the answers for the texts; None if the client left.

        Raises:
            RefusedError: the queue is full, or the answers are not there in time.
        """
        batcher, timeout = self._service.batcher, self._config.timeout
        try:
            future = batcher.submit(texts, lambda rows: documents_of(rows, decision, all_scores))
        except QueueFullError:
            seconds = str(max(1, min(math.ceil(batcher.seconds_left), math.ceil(timeout))))
            raise RefusedError(
                429, f"the queue is full; try again in {seconds} seconds", {"Retry-After": seconds}
            ) from None
        answers = asyncio.wrap_future(future)
        left: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({answers, left}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return answers.result()
            if left.done():
                return None
            raise RefusedError(503, f"no answer within {timeout:g} seconds", {"Retry-After": "1"})
        finally:
            answers.cancel()
            left.cancel()

    async def health(self) -> Response:
        """Return the state: 200 with `ready`, 503 with `loading` or `stopping`."""
        service = self._service
        content: dict[str, Any] = {"status": service.state, "version": __version__}
        if service.predictor is not None:
            checkpoints = service.predictor.checkpoints
            content["run_ids"] = [checkpoint.meta["run_id"] for checkpoint in checkpoints]
        return json_response(content, 200 if service.state == "ready" else 503)

    async def taxonomy(self) -> Response:
        """Return the nodes that can be predicted, each with id, name and parent, parents first."""
        self._taxonomy = self._taxonomy or self._service.require_ready().taxonomy.to_json().encode()
        return Response(self._taxonomy, media_type="application/json")

    async def metrics(self) -> Response:
        """Return the metrics, in Prometheus's text format."""
        return Response(generate_latest(self._service.registry), media_type=CONTENT_TYPE_LATEST)

    async def docs(self) -> Response:
        """Return a page for people, made of /openapi.json; it loads nothing from other servers."""
        template = (resources.files("hblm.inference.service") / "docs.html.j2").read_text(encoding="utf-8")
        page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(template)
        return HTMLResponse(page.render(api=self._app.openapi()))


async def _disconnected(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(refusal_of(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the error for an unknown path, a wrong method, or a body that cannot be read."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return error_response(RefusedError(400, "the body is not JSON: not UTF-8, or nested too deeply"))
    message = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
    return error_response(RefusedError(error.status_code, message, error.headers))
