"""Automatic choice of the settings that a configuration leaves open. No torch.

`trainer=auto` leaves learning rates, epochs, batch size and patience open (null). `loss=auto`,
`head.output_init=auto` and `trainer.label_documents=null` leave an option open. The choice depends on the
documents, the names of nodes and the encoder. It does not depend on the device or the method, so that all
rows of a table are trained with the same settings. It is made before the run id is computed.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hblm.config.schema import plain
from hblm.config.train import CHOSEN_BY_AUTO, TrainConfig
from hblm.data.dataset import Prepared, n_subsampled
from hblm.document import SPLITS
from hblm.encoders.pretrained import Pretrained, width_of
from hblm.errors import ConfigError
from hblm.taxonomy import names_are_words

Chosen = Mapping[str, Mapping[str, Any]]  # key -> {"value", "reason"}; plain values, for JSON
_MANY = 20_000  # training documents; each of the five benchmark datasets has more
_RARE = 10  # documents a node; with fewer, the softmax's flat prior among siblings gives better scores
_LARGE, _BASE = 1024, 768  # widths of RoBERTa-large and -base


@dataclass(frozen=True)
class Facts:
    """The facts that settings are chosen by; None where no open key needs one.

    Attributes:
        documents: number of training documents, after `dataset_fraction`.
        trainable: whether the encoder is tuned.
        width: of the encoder.
        one_path: whether every document of all splits has at most one node on each level.
        words: whether the nodes have names in words.
        nodes: number of nodes of the taxonomy.
    """

    documents: int
    trainable: bool
    width: int | None = None
    one_path: bool | None = None
    words: bool | None = None
    nodes: int | None = None

    @property
    def summary(self) -> str:
        """The facts that the trainer's values are chosen by, in words."""
        assert self.width is not None
        encoder = f"tuned encoder of width {self.width}" if self.trainable else "frozen encoder"
        return f"{self.documents:,} documents, {encoder}"


def settle(config: TrainConfig, prepared: Prepared, source: Pretrained) -> tuple[TrainConfig, Chosen]:
    """Return a configuration with no key open, and the choices made for it.

    Raises:
        ConfigError, DataError: as `facts` and `resolve`.
    """
    if not config.left_open:
        return config, {}
    return resolve(config, facts(prepared, config, source))


def facts(prepared: Prepared, config: TrainConfig, source: Pretrained) -> Facts:
    """Return the facts that the open keys of a configuration are chosen by.

    Raises:
        ConfigError: the encoder's width cannot be read.
        DataError: a split cannot be read.
    """
    left_open = config.left_open
    of_trainer = bool({f"trainer.{name}" for name in CHOSEN_BY_AUTO} & set(left_open))
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
    """Return a configuration with its open keys set, and these keys with value and reason.

    Raises:
        ConfigError: a chosen value contradicts another key.
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

    A large encoder with many training documents gets the values of the original HBLM. A smaller encoder
    trains well with higher rates, and the heads, which are new, with higher rates than the encoder. With a
    frozen encoder there is one rate, for the heads. The experiments are in docs/experiments.md.
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
    """Return the choices as arguments of the command line, with reasons; a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, choice in chosen.items():
        by_reason.setdefault(choice["reason"], []).append(_written(name, choice["value"]))
    return [f"{' '.join(given)}: {reason}" for reason, given in by_reason.items()]


def _written(name: str, value: Any) -> str:
    """Return a key and value as an argument of the command line."""
    return f"{name.removeprefix('loss.')}={plain(value)}"


def _with_reasons(problem: str, chosen: Chosen) -> str:
    """Return a message of contradicting keys, with the reasons of the chosen values in it."""
    given = {_written(name, choice["value"]): choice["reason"] for name, choice in chosen.items()}
    reasons = [f"{text} was chosen: {reason}" for text, reason in given.items() if text in problem]
    return f"{problem} ({'; '.join(reasons)})" if reasons else problem


def _loss(config: TrainConfig, known: Facts) -> tuple[str, str]:
    if config.is_flat:  # one layer for all levels has no conditional probabilities
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
    """Return whether no document has two nodes on one level.

    Raises:
        DataError: a split cannot be read, or has changed.
    """
    level = {
        prepared.taxonomy.nodes[position].id: number
        for number, positions in enumerate(prepared.taxonomy.levels)
        for position in positions
    }
    one_path = all(
        max(Counter(level[label] for label in document.labels).values(), default=0) <= 1
        for split in SPLITS
        for document in prepared.documents(split)
    )
    if not one_path:  # the search ended early, and only complete reading compares the hash of a file
        prepared.require_unchanged()
    return one_path
