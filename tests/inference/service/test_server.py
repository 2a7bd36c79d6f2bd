"""The service's interface, in this process, with a model that needs no training."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from hblm.config.serve import ServeConfig
from hblm.errors import ConfigError
from hblm.inference.decision import Decision
from hblm.inference.service.batching import Scores
from hblm.inference.service.server import make_app
from hblm.inference.service.service import Service
from hblm.taxonomy import Node, Taxonomy
from hblm.version import __version__

TAXONOMY = Taxonomy(
    [Node("a", "Art", None), Node("b", "Bio", None), Node("a1", "Film", "a"), Node("a2", "Song", "a")]
)


class Model:
    """A predictor whose score of a node is 0.9 where its id is a word of the text, else 0.25.

    Attributes:
        open: computation waits while it is cleared.
    """

    taxonomy = TAXONOMY
    checkpoints = (SimpleNamespace(meta={"run_id": "0123abcd"}),)
    as_trained = False  # no calibration documents but those of calibrate=

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[list[str]] = []

    def scores(self, texts: Sequence[str]) -> Scores:
        self.batches.append([*texts])
        assert self.open.wait(10)
        if "bad" in texts:
            raise ValueError("a bad text")
        words = [text.split() for text in texts]
        return np.array(
            [[0.9 if node.id in each else 0.25 for node in TAXONOMY.nodes] for each in words],
            dtype=np.float32,
        )

    def decision(self, *, threshold: float | None, consistency: str, top_k: int | None) -> Decision:
        best = top_k is not None and threshold is None
        return Decision(TAXONOMY, 0.5 if threshold is None else threshold, consistency, top_k, best)


class Running:
    """A service with its application and its thread."""

    def __init__(self, **options: Any) -> None:
        self.model = Model()
        self.service = Service(ServeConfig(checkpoint=["x"], **options))
        self.app = make_app(self.service)
        self.thread = threading.Thread(target=self.service.work, daemon=True)

    def start(self) -> Running:
        self.service.start(self.model)  # type: ignore[arg-type]
        self.model.batches.clear()
        self.thread.start()
        return self

    def call(self, use: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Return what `use` returns for a client of the service."""

        async def with_client() -> Any:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await use(client)

        return asyncio.run(with_client())

    def get(self, path: str) -> httpx.Response:
        return self.call(lambda client: client.get(path))

    def post(self, body: Any = None, **options: Any) -> httpx.Response:
        options = options if body is None else {"json": body, **options}
        return self.call(lambda client: client.post("/predict", **options))

    def value(self, name: str) -> float:
        """Return the value of one line of the metrics."""
        lines = (line.rpartition(" ") for line in self.get("/metrics").text.splitlines())
        return next((float(value) for key, _, value in lines if key == name), 0.0)

    def end(self) -> None:
        self.model.open.set()
        self.service.batcher.close()
        if self.thread.ident is not None:
            self.thread.join(10)


@pytest.fixture
def make() -> Iterator[Callable[..., Running]]:
    """Give a function that makes a service with these keys; they end with the test."""
    made: list[Running] = []

    def make(**options: Any) -> Running:
        made.append(Running(**options))
        return made[-1]

    yield make
    for running in made:
        running.end()


def error_of(response: httpx.Response, code: int) -> str:
    assert response.status_code == code, response.text
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert [*content] == ["error"]
    return str(content["error"])


def test_paths_of_one_text_and_of_several(make):
    running = make().start()
    one = running.post({"text": "a1 b"})
    assert one.status_code == 200
    paths = [
        {"nodes": ["a", "a1"], "names": ["Art", "Film"], "scores": [0.9, 0.9]},
        {"nodes": ["b"], "names": ["Bio"], "scores": [0.9]},
    ]
    assert one.json() == {"documents": [{"paths": [paths[1], paths[0]]}]}
    several = running.post({"texts": ["b", "", "a1"]})
    assert several.json() == {"documents": [{"paths": [paths[1]]}, {"paths": []}, {"paths": [paths[0]]}]}
    assert running.post({"texts": []}).json() == {"documents": []}
    assert b"0.25" in running.post({"text": "", "threshold": 0.25}).content  # float32, not 0.25000001


@pytest.mark.parametrize(
    ("options", "wanted", "ends", "scores"),
    [
        ({}, {"threshold": 0.2}, ["a1", "a2", "b"], None),
        ({"threshold": 0.2}, {}, ["a1", "a2", "b"], None),
        ({"threshold": 0.2}, {"threshold": 0.5}, ["a1"], None),
        ({}, {"top_k": 2}, ["a1", "b"], None),
        ({}, {"top_k": 2, "threshold": 0.5}, ["a1"], None),
        ({}, {"consistency": "cap"}, [], [0.25, 0.25, 0.25, 0.25]),
        ({"consistency": "cap"}, {}, [], None),
        ({"consistency": "cap"}, {"consistency": "none"}, ["a1"], [0.25, 0.25, 0.9, 0.25]),
    ],
)
def test_options_of_a_request_replace_those_of_the_service(make, options, wanted, ends, scores):
    running = make(**options).start()
    (document,) = running.post({"text": "a1", "all_scores": scores is not None, **wanted}).json()["documents"]
    assert sorted(path["nodes"][-1] for path in document["paths"]) == sorted(ends)
    assert document.get("scores") == (
        None if scores is None else dict(zip(("a", "b", "a1", "a2"), scores, strict=True))
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, 422, "give either text or texts"),
        ({"text": "a", "texts": ["b"]}, 422, "give either text or texts"),
        ({"text": 7}, 422, "text: Input should be a valid string"),
        ({"texts": ["a", None]}, 422, "texts[1]: Input should be a valid string"),
        ({"texts": "abc"}, 422, "texts: Input should be a valid list"),
        ({"txt": "a"}, 422, "txt: is not a field; did you mean text?"),
        ({"text": "a", "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"text": "a", "threshold": 1.5}, 422, "threshold: Input should be less than or equal to 1"),
        ({"text": "a", "threshold": "0.5"}, 422, "threshold: Input should be a valid number"),
        ({"text": "a", "consistency": "up"}, 422, "consistency: Input should be 'raise', 'cap' or 'none'"),
        ({"texts": [1] * 9}, 422, "and 4 more faults"),
        ([], 422, "the body is not an object"),
        ("a", 422, "the body is not an object"),
        ({"texts": ["a"] * 11}, 413, "texts: 11 texts; at most 10 in one request"),
        ({"text": "a" * 31}, 413, "text: 31 characters; at most 30"),
        ({"texts": ["a", "a" * 31]}, 413, "texts[1]: 31 characters; at most 30"),
        ({"text": "a" * 1000}, 413, "the body has more than 500 bytes"),
    ],
)
def test_a_wrong_request_is_answered_with_its_fault(make, body, code, message):
    running = make(max_texts=10, max_characters=30, max_body=500).start()
    assert message in error_of(running.post(body), code)
    assert running.model.batches == []


@pytest.mark.parametrize(
    ("content", "kind", "code", "message"),
    [
        (b'{"text": ', "application/json", 400, "the body is not JSON: Expecting value (character 10)"),
        (b"\xff", "application/json", 400, "the body is not JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is not JSON"),
        (b"", "application/json", 422, "the body is not an object"),
        (rb'{"text": "\ud800"}', "application/json", 422, "text: has a lone surrogate, at character 1"),
        (b'{"text": "a", "threshold": NaN}', "application/json", 422, "threshold"),
        (b'{"text": "a"}', "text/plain", 415, "content-type text/plain; send JSON with the header"),
        (b'{"text": "a"}', "", 415, "no content-type"),
    ],
)
def test_a_body_that_is_not_json_is_refused(make, content, kind, code, message):
    running = make().start()
    response = running.post(content=content, headers={"content-type": kind} if kind else {})
    assert message in error_of(response, code)


def test_a_body_beyond_the_limit_is_not_read(make):
    running = make(max_body=1000)
    read = 0

    async def body() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 400

    headers = {"content-type": "application/json"}
    assert "more than 1,000 bytes" in error_of(running.post(content=body(), headers=headers), 413)
    assert read == 3
    headers["content-length"] = "1001"
    assert "more than 1,000 bytes" in error_of(running.post(content=body(), headers=headers), 413)
    assert read == 3


def test_a_body_that_does_not_arrive_is_given_up(make):
    running = make(timeout=0.05)

    async def body() -> Any:
        yield b"{"
        await asyncio.sleep(10)

    response = running.post(content=body(), headers={"content-type": "application/json"})
    assert error_of(response, 408) == "the body did not arrive within 0.05 seconds"


def test_states(make):
    running = make()
    loading = running.get("/health")
    assert (loading.status_code, loading.json()) == (503, {"status": "loading", "version": __version__})
    for response in (running.post({"text": "a"}), running.get("/taxonomy")):
        assert error_of(response, 503) == "the model is being loaded"
    running.start()
    ready = running.get("/health")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "version": __version__, "run_ids": ["0123abcd"]}
    assert Taxonomy(Node(**node) for node in running.get("/taxonomy").json()["nodes"]) == TAXONOMY
    running.service.state = "stopping"
    assert (running.get("/health").status_code, running.get("/health").json()["status"]) == (503, "stopping")
    assert running.post({"text": "a"}).status_code == 200  # the connection was there before


def test_a_full_queue_refuses_and_recovers(make):
    running = make(queue=3, max_texts=3, max_batch=1).start()

    async def use(client: httpx.AsyncClient) -> list[int]:
        running.model.open.clear()
        first = asyncio.create_task(client.post("/predict", json={"text": "a"}))
        while not running.model.batches:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.post("/predict", json={"texts": ["a", "b"]}))
        while running.service.batcher.waiting < 2:
            await asyncio.sleep(0.01)
        refused = await client.post("/predict", json={"texts": ["a", "b"]})
        assert error_of(refused, 429) == "the queue is full; try again in 1 seconds"
        assert refused.headers["retry-after"] == "1"
        running.model.open.set()
        later = [await first, await second, await client.post("/predict", json={"texts": ["a", "b", "c"]})]
        return [response.status_code for response in later]

    assert running.call(use) == [200, 200, 200]


def test_a_client_that_leaves_frees_its_place(make):
    running = make(max_batch=1).start()
    running.model.open.clear()

    async def use() -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        body = orjson.dumps({"texts": ["a", "b", "c"]})
        await messages.put({"type": "http.request", "body": body, "more_body": False})
        kind = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": kind}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        task = asyncio.create_task(running.app(scope, messages.get, send))
        while running.service.batcher.waiting != 2:
            await asyncio.sleep(0.01)
        await messages.put({"type": "http.disconnect"})
        await asyncio.wait_for(task, 10)
        assert running.service.batcher.waiting == 0
        assert not any(message.get("body") for message in sent)

    asyncio.run(use())
    running.model.open.set()
    assert running.post({"text": "a"}).status_code == 200
    assert running.model.batches == [["a"], ["a"]]
    assert running.value('hblm_requests_total{code="499",path="/predict"}') == 1


def test_an_answer_that_takes_too_long_is_given_up(make):
    running = make(timeout=0.05, max_batch=1).start()
    running.model.open.clear()
    response = running.post({"texts": ["a", "b"]})
    assert error_of(response, 503) == "no answer within 0.05 seconds"
    assert running.service.batcher.waiting == 0
    running.model.open.set()
    assert running.post({"text": "a"}).status_code == 200


def test_a_failure_is_an_error_of_its_own_request(make, caplog):
    running = make().start()

    async def use(client: httpx.AsyncClient) -> list[int]:
        running.model.open.clear()
        bodies = ["a", "bad", "b"]
        sent = [asyncio.create_task(client.post("/predict", json={"text": text})) for text in bodies]
        while sum(map(len, running.model.batches)) + running.service.batcher.waiting < 3:
            await asyncio.sleep(0.01)
        running.model.open.set()
        return [await each for each in sent]

    good, bad, other = running.call(use)
    assert (good.status_code, other.status_code) == (200, 200)
    assert error_of(bad, 500) == "internal error; the service's log has its cause"
    assert "a bad text" in caplog.text


def test_unknown_paths_and_methods(make):
    running = make()
    assert error_of(running.get("/predicted"), 404).startswith("GET /predicted: Not Found")
    assert error_of(running.get("/predict"), 405).startswith("GET /predict: Method Not Allowed")
    assert running.get("/").headers["location"] == "docs"


def test_metrics_count_requests_texts_and_batches(make):
    running = make().start()
    running.post({"texts": ["a", "b", "a"]})
    running.post({"text": "a"})
    running.post({"text": 1})
    running.get("/unknown")
    assert running.value('hblm_requests_total{code="200",path="/predict"}') == 2
    assert running.value('hblm_requests_total{code="422",path="/predict"}') == 1
    assert running.value('hblm_requests_total{code="404",path="other"}') == 1
    assert running.value("hblm_texts_total") == 4
    assert running.value("hblm_batch_texts_sum") == 4
    assert running.value("hblm_batch_texts_count") == 2
    assert running.value('hblm_request_seconds_count{path="/predict"}') == 3
    assert running.value("hblm_queue_texts") == 0
    assert running.value("hblm_ready") == 1


def test_a_line_a_request_is_logged_where_wanted(make, caplog):
    caplog.set_level("INFO", logger="hblm")
    make().start().post({"text": "a"})
    assert "/predict" not in caplog.text
    make(access_log=True).start().post({"text": "a"})
    assert "POST /predict 200" in caplog.text


def test_the_description_names_every_path_and_code(make):
    running = make()
    api = running.get("/openapi.json").json()
    assert [*api["paths"]] == ["/predict", "/health", "/taxonomy", "/metrics"]
    codes = api["paths"]["/predict"]["post"]["responses"]
    assert {"200", "400", "408", "413", "415", "422", "429", "503"} == {*codes}
    fields = api["components"]["schemas"]["PredictRequest"]["properties"]
    assert all(field["description"] for field in fields.values())


def test_the_page_for_people_loads_nothing_from_elsewhere(make):
    page = make().get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("POST /predict", "GET /health", "GET /taxonomy", "GET /metrics"):
        assert f"<h2><code>{path}</code></h2>" in page.text
    for part in ("http://", "https://", "src=", "//cdn"):
        assert part not in page.text
    assert json.dumps("a text") in page.text  # the example


def test_a_confidence_that_the_model_cannot_give_is_refused_with_its_reason(make):
    running = make().start()
    message = error_of(running.post({"text": "a", "confidence": 0.9}), 422)
    assert message.startswith("confidence= of several models, or with tri_fuse_*, needs calibrate=FOLDER")
    with pytest.raises(ConfigError, match="confidence= returns nodes with all their ancestors"):
        make(confidence=0.9, consistency="none").start()


def test_calibration_documents_are_scored_once_whatever_confidence_is_wanted(make, monkeypatch):
    calls = []

    def critical_of(*given: Any, may_score: bool) -> np.ndarray:
        calls.append(given)
        return np.linspace(0, 0.99, 100)

    monkeypatch.setattr("hblm.inference.confidence.critical_of", critical_of)
    running = make(calibrate="folder", confidence=0.5).start()
    ends = {}
    for confidence in (None, 0.05, 0.95):
        answer = running.post({"text": "a1 b", "confidence": confidence}).json()["documents"][0]
        ends[confidence] = sorted(path["nodes"][-1] for path in answer["paths"])
    assert ends == {None: ["a1", "b"], 0.05: ["a1", "b"], 0.95: []}
    assert len(calls) == 1
    for option in ({"threshold": 0.3}, {"consistency": "cap"}):
        message = error_of(running.post({"text": "a", "confidence": 0.9, **option}), 422)
        assert message == f"{next(iter(option))}: with confidence it is that of the service; leave it out"
    assert len(calls) == 1
    message = error_of(running.post({"text": "a", "confidence": 0.999}), 422)
    assert "needs at least 999 calibration documents; calibrate=folder has 100" in message
