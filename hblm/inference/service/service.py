"""The model behind the service: its state, its queue, its metrics, and the decisions of requests."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from hblm.config.serve import ServeConfig
from hblm.errors import HblmError
from hblm.inference.service.batching import Batcher, Scores
from hblm.inference.service.http_messages import PredictRequest, RefusedError

if TYPE_CHECKING:
    from hblm.inference.decision import Decision
    from hblm.inference.predictor import Predictor

_DECISIONS = 128  # combinations of options that are kept
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # bounds of the histogram of batches


class Service:
    """A model that answers requests, and its state.

    Attributes:
        state: loading, ready or stopping.
        predictor: the model; None while it is loaded.
        registry: the metrics.
        batcher: the queue of requests.
    """

    def __init__(self, config: ServeConfig) -> None:
        """Make a service without a model."""
        self.config, self.state = config, "loading"
        self.predictor: Predictor | None = None
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        batches = Histogram("hblm_batch_texts", "Texts of a batch.", buckets=_TEXTS, registry=self.registry)
        self.texts = Counter("hblm_texts", "Texts that were answered.", registry=self.registry)
        self.batcher = Batcher(
            batch=config.max_batch,
            queue=config.queue,
            wait=config.batch_wait / 1000,
            observe=batches.observe,
        )
        waiting = Gauge("hblm_queue_texts", "Texts that wait.", registry=self.registry)
        waiting.set_function(lambda: self.batcher.waiting)
        ready = Gauge("hblm_ready", "1 when the model is loaded.", registry=self.registry)
        ready.set_function(lambda: self.state == "ready")
        self._decided = functools.lru_cache(_DECISIONS)(self._decision)

    def start(self, predictor: Predictor) -> None:
        """Take the model: from now on requests are answered.

        Raises:
            CheckpointError, ConfigError, DataError: the model cannot do what the configuration wants.
        """
        predictor.scores(["a first text, because the first computation takes longer"])
        self.predictor = predictor
        self._decided(None, None, None)
        if self.state == "loading":
            self.state = "ready"

    def work(self) -> None:
        """Compute batches until the batcher is closed; run it in a thread of its own."""
        self.batcher.work(self.require_ready().scores)

    def require_ready(self) -> Predictor:
        """Return the model.

        Raises:
            RefusedError: it is being loaded.
        """
        if self.predictor is None:
            raise RefusedError(503, "the model is being loaded", {"Retry-After": "1"})
        return self.predictor

    def decision(self, wanted: PredictRequest) -> Decision:
        """Return how scores become predicted paths for one request; this may score calibration documents.

        Raises:
            RefusedError: the model cannot do it.
        """
        config, top_k = self.config, wanted.top_k
        try:
            decision = self._decided(wanted.threshold, wanted.consistency, wanted.confidence)
        except HblmError as error:
            raise RefusedError(422, str(error)) from None
        chosen = (wanted.threshold, wanted.confidence, config.threshold, config.confidence)
        best = top_k is not None and config.tune == "none" and chosen == (None,) * 4
        return replace(decision, top_k=top_k, best=best)

    def _decision(
        self, threshold: float | None, consistency: str | None, confidence: float | None
    ) -> Decision:
        """Return the decision of a request's options; None for those of the configuration."""
        from hblm.inference.stored_decisions import decision_for

        config = self.config
        if threshold is not None:  # in place of tuned ones too
            config = replace(config, threshold=threshold, tune="none")
        config = replace(config, consistency=consistency or config.consistency)
        confidence = confidence or config.confidence
        calibrate = config.calibrate if confidence is not None else None
        return decision_for(config, self.require_ready(), confidence=confidence, calibrate=calibrate)


def documents_of(rows: Scores, decision: Decision, all_scores: bool) -> Iterable[dict[str, Any]]:
    """Yield the answer for each text, as JSON values, of its scores."""
    decided = decision.decide(rows)
    for row in range(len(rows)):
        document: dict[str, Any] = {"paths": [path.to_json() for path in decision.paths(decided, row)]}
        if all_scores:
            ids = (node.id for node in decision.taxonomy.nodes)
            document["scores"] = dict(zip(ids, decided.scores[row], strict=True))
        yield document
