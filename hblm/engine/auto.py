"""Settings that choose themselves: what is left open is filled in before a run has an id. No torch.

`trainer=auto` leaves learning rates, epochs, batch size and patience open (null). `loss=auto`,
`head.output_init=auto` and `trainer.label_documents=null` leave an option open. The documents, the names of
nodes and the encoder decide. The device does not, nor does the method: all rows of a table are trained alike.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hblm.config.schema import plain
from hblm.config.train import OF_TRAINER, TrainConfig
from hblm.data.dataset import Prepared, n_subsampled
from hblm.document import SPLITS
from hblm.encoders.pretrained import Pretrained, width_of
from hblm.errors import ConfigError
from hblm.taxonomy import names_are_words

Chosen = Mapping[str, Mapping[str, Any]]  # key -> {"value", "reason"}; plain values, for JSON


_MANY = 20_000  # documents; each of the five benchmark sets has more


_RARE = 10  # documents a node; where there are fewer, the softmax's flat prior among siblings pays


_LARGE, _BASE = 1024, 768  # widths of RoBERTa-large and -base


@dataclass(frozen=True)
class Facts:
    """What the settings are chosen by; None where no open key needs it.

    Attributes:
        documents: of the training split, those that `dataset_fraction` leaves.
        trainable: whether the encoder is tuned.
        width: the encoder's.
        one_path: whether every document of all splits has at most one node on each level.
        words: whether the nodes are named in words.
        nodes: of the taxonomy.
    """

    documents: int
    trainable: bool
    width: int | None = None
    one_path: bool | None = None
    words: bool | None = None
    nodes: int | None = None

    @property
    def summary(self) -> str:
        """What the trainer's values are chosen by, in words."""
        assert self.width is not None
        encoder = f"tuned encoder of width {self.width}" if self.trainable else "frozen encoder"
        return f"{self.documents:,} documents, {encoder}"


def settle(config: TrainConfig, prepared: Prepared, source: Pretrained) -> tuple[TrainConfig, Chosen]:
    """Return a configuration that leaves nothing open, and what was chosen for it.

    Raises:
        ConfigError, DataError: as `facts` and `resolve` do.
    """
    if not config.left_open:
        return config, {}
    return resolve(config, facts(prepared, config, source))


def facts(prepared: Prepared, config: TrainConfig, source: Pretrained) -> Facts:
    """Return what the open keys of a configuration are chosen by.

    Raises:
        ConfigError: the encoder's size is not to be had.
        DataError: a split cannot be read.
    """
    left_open = config.left_open
    of_trainer = bool({f"trainer.{name}" for name in OF_TRAINER} & set(left_open))
    of_words = {"head.output_init", "trainer.label_documents"} & set(left_open)
    return Facts(
        documents=n_subsampled(_n_training(prepared), config.dataset_fraction),
        trainable=config.encoder.trainable,
        width=width_of(source) if of_trainer else None,
        nodes=len(prepared.taxonomy) if "loss.loss" in left_open else None,
        one_path=_has_one_path(prepared) if "loss.loss" in left_open and not config.is_flat else None,
        words=_has_words(prepared) if of_words else None,
    )


def resolve(config: TrainConfig, known: Facts) -> tuple[TrainConfig, Chosen]:
    """Return a configuration with its open keys filled in, and these keys with value and reason.

    Raises:
        ConfigError: a value that was chosen does not go together with another key.
    """
    chosen: dict[str, dict[str, Any]] = {}
    value: Any
    for name in config.left_open:
        in_words = f"nodes are named {'in words' if known.words else 'by codes'}"
        if name == "loss.loss":
            value, reason = _loss(config, known)
        elif name == "head.output_init":
            value, reason = "label_text" if known.words else "prior", in_words
        elif name == "trainer.label_documents":
            value, reason = known.words, in_words
        else:
            value, reason = training(known)[name.rpartition(".")[2]], known.summary
        chosen[name] = {"value": value, "reason": reason}
    config = config.having({name: choice["value"] for name, choice in chosen.items()})
    problems = config.conflicts() if chosen else []
    if problems:
        raise ConfigError("\n".join(_with_reasons(problem, chosen) for problem in problems))
    return config, chosen


def training(known: Facts) -> dict[str, Any]:
    """Return the trainer's values: learning rates, epochs, batch size and patience.

    A large encoder on a large training split gets the original's. A smaller encoder stands higher rates, and
    heads, which are new, higher ones than the encoder. With a frozen encoder there is one rate, the heads'.
    How they were found is in docs/experiments.md.
    """
    assert known.width is not None
    always = {"batch_size": 32, "patience": 10}
    if not known.trainable:
        return {"learning_rate": 3e-3, "head_learning_rate": None, "epochs": 30, **always}
    if known.width >= _LARGE and known.documents >= _MANY:
        return {"learning_rate": 3e-5, "head_learning_rate": None, "epochs": 65, **always}
    if known.width >= _LARGE:
        rates = {"learning_rate": 3e-5, "head_learning_rate": 6e-4}
    elif known.width >= _BASE:
        rates = {"learning_rate": 5e-5, "head_learning_rate": 1e-3}
    else:
        rates = {"learning_rate": 1e-4, "head_learning_rate": 2e-3}
    return {**rates, "epochs": 15, **always}


def lines(chosen: Chosen) -> list[str]:
    """Return what was chosen, as it would be given, and why; a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, choice in chosen.items():
        by_reason.setdefault(choice["reason"], []).append(_written(name, choice["value"]))
    return [f"{' '.join(given)}: {reason}" for reason, given in by_reason.items()]


def _written(name: str, value: Any) -> str:
    """Return a value as it would be given."""
    return f"{name.removeprefix('loss.')}={plain(value)}"


def _with_reasons(problem: str, chosen: Chosen) -> str:
    """Return what does not go together, and why the values in it that were chosen are so."""
    given = {_written(name, choice["value"]): choice["reason"] for name, choice in chosen.items()}
    reasons = [f"{text} was chosen: {reason}" for text, reason in given.items() if text in problem]
    return f"{problem} ({'; '.join(reasons)})" if reasons else problem


def _loss(config: TrainConfig, known: Facts) -> tuple[str, str]:
    if config.is_flat:  # one layer without levels has no node given its parent
        return "bce", "method=flat has one layer for all levels"
    if not known.one_path:
        return "conditional", "documents have several paths"
    assert known.nodes is not None
    rate = f"one path a document and {known.documents / known.nodes:.1f} documents a node"
    return "conditional_softmax" if known.documents < _RARE * known.nodes else "conditional", rate


@functools.lru_cache(maxsize=16)
def _n_training(prepared: Prepared) -> int:
    return prepared.count("train")


@functools.lru_cache(maxsize=16)
def _has_words(prepared: Prepared) -> bool:
    return names_are_words(prepared.taxonomy)


@functools.lru_cache(maxsize=16)
def _has_one_path(prepared: Prepared) -> bool:
    """Return whether no document has two nodes on a level; the first one that has ends the search."""
    level = {
        prepared.taxonomy.nodes[position].id: number
        for number, positions in enumerate(prepared.taxonomy.levels)
        for position in positions
    }
    found = all(
        max(Counter(level[label] for label in document.labels).values(), default=0) <= 1
        for split in SPLITS
        for document in prepared.documents(split)
    )
    if not found:  # what was not read to its end was not compared
        prepared.require_unchanged()
    return found
