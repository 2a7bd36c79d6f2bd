"""Notes on a training run: one line each on early stopping, scores that do not move, thresholds and the like.

A note is a dictionary: `what` happened, the values that show it, and `text`, the line. Only the validation
split is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hblm.config.train import TrainConfig

Note = dict[str, Any]

RISE = 0.01  # of F1, which is one point: a smaller rise may be chance
LONG = 3600.0  # seconds: a longer training is announced


@dataclass(frozen=True)
class Trained:
    """Data of a training run for its notes.

    Attributes:
        config: the run's configuration.
        history: an entry an epoch, as in the result.
        best_epoch: counted from 1; its weights are kept.
        val: its scores of the monitored view on the validation split, with a row for each node in `nodes`.
        thresholds: micro_f1, macro_f1 and each level's predicted labels at each threshold of a rising grid
            (see thresholds.py), on the validation split.
        evaluate: the command that evaluates the checkpoint; None without a checkpoint.
    """

    config: TrainConfig
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    val: Mapping[str, Any]
    thresholds: Sequence[Mapping[str, Any]]
    evaluate: str | None

    @property
    def epochs(self) -> int:
        """The configured maximum of epochs."""
        epochs = self.config.trainer.epochs
        assert epochs is not None  # chosen before the run id is computed
        return epochs

    @property
    def monitored(self) -> list[float]:
        """The score that decides which epoch is best, of each epoch."""
        view, name = self.config.joint_variant.monitored, self.config.trainer.monitor
        return [entry["views"][view][name] for entry in self.history]

    @property
    def score_name(self) -> str:
        """The name of that score, for messages."""
        view, name = self.config.joint_variant.monitored, self.config.trainer.monitor
        return f"validation {_IN_WORDS[name]}" + (f" of the {view} view" if view != "single" else "")

    @property
    def predicted(self) -> list[int]:
        """The labels predicted on each level."""
        counts = [0] * len(self.val["per_level"])
        for node in self.val["nodes"]:
            counts[node["level"]] += node["predicted"]
        return counts


_IN_WORDS = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}


def notes(trained: Trained) -> list[Note]:
    """Return the notes on a run; an empty list if there is nothing unusual."""
    return [note for make in _NOTES for note in make(trained)]


def _stopped_early(trained: Trained) -> Iterator[Note]:
    """Yield a note if patience ended the training."""
    epochs, done, best = trained.epochs, len(trained.history), trained.best_epoch
    if done == epochs:
        return
    score = trained.monitored[best - 1]
    yield {
        "what": "stopped_early",
        "epoch": done,
        "epochs": epochs,
        "best_epoch": best,
        "score": score,
        "text": (
            f"training stopped after epoch {done} of {epochs}: {trained.score_name} was best in epoch "
            f"{best}, {_percent(score)}, and no better in the {done - best} epochs since "
            f"(trainer.patience={trained.config.trainer.patience}); epoch {best} is kept"
        ),
    }


def _still_rising(trained: Trained) -> Iterator[Note]:
    """Yield a note if the last epoch is the best, by `RISE` over all before the last fifth."""
    scores, done = trained.monitored, len(trained.history)
    before = done - max(1, round(done / 5))
    if done < trained.epochs or trained.best_epoch < done or before < 1:
        return
    earlier, score = max(scores[:before]), scores[-1]
    if score - earlier < RISE:
        return
    yield {
        "what": "still_rising",
        "epochs": done,
        "score": score,
        "earlier_epochs": before,
        "earlier_score": earlier,
        "text": (
            f"{trained.score_name} was still rising when training ended after epoch {done} of {done}: "
            f"at most {_percent(earlier)} up to epoch {before}, {_percent(score)} in epoch {done}; "
            f"trainer.epochs={2 * done} trains longer"
        ),
    }


def _never_moved(trained: Trained) -> Iterator[Note]:
    """Yield a note if the monitored score is the same in all epochs: 0, or between 0 and 1."""
    scores, trainer = trained.monitored, trained.config.trainer
    score, done = scores[0], len(scores)
    if any(other != score for other in scores) or score == 1 or (score and done == 1):
        return
    losses = [entry["train_loss"] for entry in trained.history]
    key = "learning_rate" if trainer.head_learning_rate is None else "head_learning_rate"
    rate = getattr(trainer, key)
    attempts = f"trainer.{key}={10 * rate:g} (now {rate:g})"
    if losses[-1] >= losses[0] and done > 1:
        attempts += f" or {rate / 10:g}, since the loss did not fall,"
    attempts += f" or trainer.epochs={2 * trained.epochs}"
    if trained.config.head.output_init == "default":
        attempts += " or head.output_init=prior"
    yield {
        "what": "score_never_moved",
        "epochs": done,
        "score": score,
        "train_losses": [losses[0], losses[-1]],
        "text": (
            f"{trained.score_name} was {_percent(score)} in every epoch ({done}); the training loss was "
            f"{losses[0]:.4g} in the first and {losses[-1]:.4g} in the last; try {attempts}"
        ),
    }


def _levels_never_predicted(trained: Trained) -> Iterator[Note]:
    """Yield a note for each level with gold labels but no prediction, if other levels have predictions."""
    if not any(trained.predicted):
        return
    for level, scores in enumerate(trained.val["per_level"]):
        if trained.predicted[level] or not scores["support"]:
            continue
        threshold = trained.val["threshold"]
        reached = [row["threshold"] for row in trained.thresholds if row["predicted"][level]]
        highest = max(reached, default=None)
        if highest is None:
            advice = f"no score there reaches {trained.thresholds[0]['threshold']:g}"
        else:
            advice = f"at threshold={highest:g} some would be"
        yield {
            "what": "level_never_predicted",
            "level": level,
            "nodes": scores["nodes"],
            "gold": scores["support"],
            "threshold": threshold,
            "predicted_from": highest,
            "text": (
                f"on validation no node of level {level} ({scores['nodes']:,} nodes, {scores['support']:,} "
                f"gold labels) is predicted at threshold {threshold:g}, and {advice}; more trainer.epochs or "
                "a higher trainer.head_learning_rate raises the scores"
            ),
        }


def _too_few_predicted(trained: Trained) -> Iterator[Note]:
    """Yield a note if precision is more than twice the recall and a lower threshold is better.

    Precision / recall is gold / predicted labels: with fewer than half as many predictions as gold labels,
    recall is below one half, however good the model is.
    """
    overall, used = trained.val["overall"], trained.val["threshold"]
    predicted, gold, monitor = sum(trained.predicted), overall["support"], trained.config.trainer.monitor
    # of equal scores the threshold nearest to the one in use
    best = max(trained.thresholds, key=lambda row: (row[monitor], -abs(row["threshold"] - used)))
    if 2 * predicted >= gold or best["threshold"] >= used or best[monitor] <= overall[monitor]:
        return
    grid = trained.thresholds[0]["threshold"], trained.thresholds[-1]["threshold"]
    if trained.evaluate is None:
        command = "trainer.keep_checkpoint=true keeps what hblm.evaluate needs to score it"
    else:
        command = f"{trained.evaluate} threshold={best['threshold']:g}"
    yield {
        "what": "precision_above_recall",
        "threshold": used,
        **{name: overall[name] for name in ("micro_precision", "micro_recall", *_IN_WORDS)},
        "best": {name: best[name] for name in ("threshold", *_IN_WORDS)},
        "text": (
            f"on validation {predicted:,} labels are predicted at threshold {used:g}, and {gold:,} are gold: "
            f"precision {_percent(overall['micro_precision'])}, recall {_percent(overall['micro_recall'])}, "
            f"{_f1_of(overall)}; of the thresholds {grid[0]:g} to {grid[1]:g} the best there for "
            f"{_IN_WORDS[monitor]} is {best['threshold']:g}, with {_f1_of(best)}: {command}"
        ),
    }


_NOTES: tuple[Callable[[Trained], Iterator[Note]], ...] = (
    _stopped_early,
    _still_rising,
    _never_moved,
    _levels_never_predicted,
    _too_few_predicted,
)


def long_training(seconds: float, config: TrainConfig, *, documents: int, device: str) -> str | None:
    """Return a line that announces a long training and how to shorten it; None for a short one.

    Args:
        seconds: its duration without early stopping; with a frozen encoder, that of embedding once.
        config: the run's configuration.
        documents: number of training documents; with a frozen encoder, of all documents to embed.
        device: its name; `cpu` for a CPU.
    """
    if seconds <= LONG:
        return None
    encoder, epochs = config.encoder, config.trainer.epochs
    shorter = [
        "a smaller encoder",
        f"encoder.max_length={encoder.max_length // 2} (now {encoder.max_length})",
        f"dataset_fraction={config.dataset_fraction / 10:g} (now {config.dataset_fraction:g})",
        *(["a GPU"] if device == "cpu" else []),
    ]
    if encoder.trainable:
        work, passes = "training takes at most", f"{documents:,} documents x {epochs} epochs"
        shorter.insert(0, "encoder.trainable=false, which runs the encoder once")
    else:
        work, passes = "encoding once takes", f"{documents:,} documents"
    return f"{work} about {_duration(seconds)} on {device}: {passes}; shorter: {', '.join(shorter)}"


def _duration(seconds: float) -> str:
    """Return a duration of more than an hour in hours, or from two days on in days."""
    hours = seconds / 3600
    if hours < 9.5:
        return f"{hours:.2g} hours"
    return f"{hours:,.0f} hours" if hours < 48 else f"{hours / 24:,.0f} days"


def _percent(score: float) -> str:
    return f"{100 * score:.2f}"


def _f1_of(scores: Mapping[str, Any]) -> str:
    return " and ".join(f"{words} {_percent(scores[name])}" for name, words in _IN_WORDS.items())
