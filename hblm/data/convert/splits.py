"""Splits for raw data without them: seeded, with every node in training and equal texts in one split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np

from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.document import SPLITS
from hblm.errors import ConfigError, DataError

Item = TypeVar("Item")


def fill_splits(
    buffer: DocumentBuffer, labels: Sequence[Sequence[str]], *, shares: Sequence[float], seed: int
) -> tuple[list[str], list[str]]:
    """Return the split of each document, and notes on splits that were drawn from the training documents.

    Args:
        buffer: the documents, with the splits of the raw data.
        labels: of each document.
        shares: of train, val and test.
        seed: of the draw.

    Raises:
        DataError: the raw data has splits, but no training split.
    """
    splits = list(buffer.splits)
    missing = [split for split in SPLITS if split not in splits]
    if not missing:
        return splits, []
    if missing[0] == "train" and len(missing) < len(SPLITS):
        raise DataError(
            f"no document for training: the splits named are {', '.join(sorted({*splits} - {''}))}; "
            f"val and test can be drawn from train, not train from them"
        )
    drawn_from = [at for at, split in enumerate(splits) if split in ("", "train")]
    wanted = [
        share if split in ("train", *missing) else 0.0 for split, share in zip(SPLITS, shares, strict=True)
    ]
    drawn = assign_splits(
        [labels[at] for at in drawn_from],
        seed=seed,
        shares=(wanted[0] / sum(wanted), wanted[1] / sum(wanted), wanted[2] / sum(wanted)),
        texts=[buffer.digests[at] for at in drawn_from],
    )
    for at, split in zip(drawn_from, drawn, strict=True):
        splits[at] = split
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        raise DataError(
            f"{len(drawn_from):,} documents cannot make {' and '.join(missing)}: every node keeps one for "
            f"training, equal texts stay together, and nothing is left for {' and '.join(empty)}"
        )
    made = " and ".join(split for split in SPLITS if split in missing)
    whole = len(missing) == len(SPLITS)
    return splits, [
        f"the splits were drawn by seed {seed}" if whole else f"{made}: drawn from train by seed {seed}"
    ]


def held_out(items: Sequence[Item], number: int, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Return the remaining and the held-out items, as scikit-learn's train_test_split with random_state=seed.

    numpy guarantees the stream of this generator, so that splits of papers can be reproduced.
    """
    order = np.random.RandomState(seed).permutation(len(items))
    return [items[at] for at in order[number:]], [items[at] for at in order[:number]]


def require_shares(shares: Sequence[float]) -> None:
    """Refuse shares that do not make three splits.

    Raises:
        ConfigError: not three numbers above 0 that add up to 1.
    """
    if len(shares) != len(SPLITS) or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"dataset.prepare.shares={list(shares)}: expected three numbers above 0 that add up to 1, for "
            f"train, val and test, such as [0.8,0.1,0.1]"
        )


def assign_splits(
    labels: Sequence[Sequence[str]],
    *,
    seed: int,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    texts: Sequence[int] = (),
) -> list[str]:
    """Return "train", "val" or "test" for each document, given the labels of each.

    Three rules take precedence over the exact shares: every label has a training document, a document without
    labels is never a training document, and documents with equal `texts` (hashes, if given) are in one split.
    With three texts or more, every split with a share gets one if the rules allow it. The time is linear in
    documents and labels; the result is the same on every machine.
    """
    if min(shares) < 0 or shares[0] == 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares={shares}: expected three that add up to 1, the first above 0")
    groups = _groups(labels, texts)
    n = len(labels)
    wanted = [max(round(n * share), 1 if share and len(groups) >= 3 else 0) for share in shares[1:]]
    together = [
        {label for at in group for label in labels[at]} if group[1:] else labels[group[0]] for group in groups
    ]
    trainable = [all(labels[at] for at in group) for group in groups]
    source = random.Random(seed)
    order = _shuffled(range(len(groups)), source)
    train = _covering(
        [of_group if fit else set() for of_group, fit in zip(together, trainable, strict=True)], order
    )
    filled = sum(len(groups[group]) for group in train)
    room = max(n - sum(wanted), 1)
    needed = sum(number > 0 for number in wanted)  # texts for the other splits
    for group in order:
        if filled >= room or len(groups) - len(train) <= needed:
            break
        if trainable[group] and group not in train:
            train.add(group)
            filled += len(groups[group])
    # Shuffled again: the skipped documents without labels are at the front.
    rest = _shuffled((group for group in order if group not in train), source)
    n_val = round((n - filled) * shares[1] / max(shares[1] + shares[2], 1e-9))
    if all(wanted) and len(rest) > 1:
        n_val = min(max(n_val, 1), n - filled - 1)
    splits = ["train"] * n
    seen = 0
    for place, group in enumerate(rest):
        last = all(wanted) and place == len(rest) - 1 and place > 0  # the groups before may be large
        split = "val" if seen < n_val and not last else "test"
        for at in groups[group]:
            splits[at] = split
        seen += len(groups[group])
    return splits


def _groups(labels: Sequence[Sequence[str]], texts: Sequence[int]) -> list[list[int]]:
    """Return the positions of the documents of each text, in the order of the first ones."""
    if not texts:
        return [[at] for at in range(len(labels))]
    groups: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        groups.setdefault(text, []).append(at)
    return list(groups.values())


def _covering(labels: Sequence[Collection[str]], order: Iterable[int]) -> set[int]:
    """Return a small set of documents that covers every label, chosen by the rarest labels first."""
    support = Counter(label for document in labels for label in set(document))
    by_rarity: dict[int, list[int]] = {}
    for document in order:
        if labels[document]:
            by_rarity.setdefault(min(support[label] for label in labels[document]), []).append(document)
    chosen: set[int] = set()
    covered: set[str] = set()
    for rarity in sorted(by_rarity):
        for document in by_rarity[rarity]:
            if not covered.issuperset(labels[document]):
                chosen.add(document)
                covered.update(labels[document])
    return chosen


def _shuffled(items: Iterable[int], source: random.Random) -> list[int]:
    """Shuffle by `random()`, the only method with a stream that Python guarantees."""
    shuffled = list(items)
    for last in range(len(shuffled) - 1, 0, -1):
        other = int(source.random() * (last + 1))
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return shuffled
