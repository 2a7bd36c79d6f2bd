"""The model behind the service: its state, its queue, its metrics, and the decisions of requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from hblm.config.serve import ServeConfig
from hblm.errors import ConfigError, HblmError
from hblm.inference.service.batching import Batcher, Scores
from hblm.inference.service.http_messages import PredictRequest, RefusedError

if TYPE_CHECKING:
    from hblm.inference.confidence import Critical
    from hblm.inference.decision import Decision
    from hblm.inference.predictor import Predictor

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
        self._decision: Decision | None = None  # of the configuration, without confidence
        self._critical: Critical | HblmError | None = None  # for confidence, or why there is none

    def start(self, predictor: Predictor) -> None:
        """Take the model: from now on requests are answered.

        Raises:
            CheckpointError, ConfigError, DataError: the model cannot do what the configuration wants.
        """
        predictor.scores(["a first text, because the first computation takes longer"])
        self._decide(predictor)
        self.predictor = predictor
        if self.state == "loading":
            self.state = "ready"

    def _decide(self, predictor: Predictor) -> None:
        """Make the decision of the configuration, and score the calibration documents, where there are any.

        Requests cost no more than the prediction of their texts: only here documents are scored.

        Raises:
            CheckpointError, ConfigError, DataError: the model cannot do what the configuration wants.
        """
        from hblm.inference.confidence import critical_of
        from hblm.inference.stored_decisions import decision_for

        config = self.config
        self._decision, share = decision_for(config, predictor), config.confidence
        is_wanted = share is not None or config.calibrate is not None
        try:
            self._critical = critical_of(
                predictor, self._decision, config.calibrate, share, may_score=is_wanted
            )
        except HblmError as error:
            if is_wanted:
                raise
            self._critical = error  # a request with confidence gets it
        if share is not None:
            self._cut_back(self._decision, predictor, share)

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
        """Return how scores become predicted paths for one request.

        Raises:
            RefusedError: the model cannot do it.
        """
        predictor, config, top_k = self.require_ready(), self.config, wanted.top_k
        assert self._decision is not None
        decision = replace(self._decision, consistency=wanted.consistency or config.consistency)
        if wanted.threshold is not None:  # in place of tuned ones too
            decision = replace(decision, thresholds=wanted.threshold)
        confidence = wanted.confidence or config.confidence
        try:
            if confidence is not None:
                decision = self._cut_back(decision, predictor, confidence)
                self._require_as_calibrated(wanted)
        except HblmError as error:
            raise RefusedError(422, str(error)) from None
        chosen = (wanted.threshold, wanted.confidence, config.threshold, config.confidence)
        best = top_k is not None and config.tune == "none" and chosen == (None,) * 4
        return replace(decision, top_k=top_k, best=best)

    def _require_as_calibrated(self, wanted: PredictRequest) -> None:
        """Refuse, with confidence, another threshold or consistency: calibration documents need both.

        Raises:
            ConfigError: with the field.
        """
        for name in ("threshold", "consistency"):
            if getattr(wanted, name) not in (None, getattr(self.config, name)):
                raise ConfigError(f"{name}: with confidence it is that of the service; leave it out")

    def _cut_back(self, decision: Decision, predictor: Predictor, confidence: float) -> Decision:
        """Return a decision that cuts paths back, so that this share of texts has no wrong node.

        Raises:
            CheckpointError, ConfigError, DataError: there are no calibration documents, or too few.
        """
        from hblm.inference.confidence import least_of, origin_of

        if isinstance(self._critical, HblmError):
            raise type(self._critical)(str(self._critical))
        assert self._critical is not None
        origin = origin_of(predictor.checkpoints[0], self.config.calibrate)
        return replace(decision, least=least_of(self._critical, confidence, origin), best=False)


def documents_of(rows: Scores, decision: Decision, all_scores: bool) -> Iterable[dict[str, Any]]:
    """Yield the answer for each text, as JSON values, of its scores."""
    decided = decision.decide(rows)
    for row in range(len(rows)):
        document: dict[str, Any] = {"paths": [path.to_json() for path in decision.paths(decided, row)]}
        if all_scores:
            ids = (node.id for node in decision.taxonomy.nodes)
            document["scores"] = dict(zip(ids, decided.scores[row], strict=True))
        yield document
