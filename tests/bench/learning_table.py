"""Table of learning.csv: means, paired differences, and significance. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from learning_lines import METHODS, Line, Variant

from hblm.tables.significance import Effect, effect, runs_needed, shaffer

ALPHA = 0.05
REFERENCES = (Variant("independent"), Variant("flat"))
SCORES = {"test_micro": "micro-F1", "test_macro": "macro-F1"}
BINNED = ("macro_1_9", "macro_10_99", "macro_100")

Runs = Mapping[Variant, Mapping[int, Line]]  # by variant, then by seed


class Comparison(NamedTuple):
    """A variant against a reference in one score, over the seeds that both have.

    Attributes:
        seeds: how many.
        size: the mean difference and its 95 % t interval, in F1 of 0..1.
        p: of the paired t test that the interval belongs to.
        p_adjusted: by Holm's procedure over the variants of the setting.
    """

    seeds: int
    size: Effect
    p: float
    p_adjusted: float

    @property
    def is_better(self) -> bool:
        """Whether the variant is significantly better."""
        return self.size.difference > 0 and self.p_adjusted <= ALPHA


def compare(runs: Runs, reference: Variant, score: str) -> dict[Variant, Comparison]:
    """Compare each variant that shares at least two seeds with the reference."""
    found: dict[Variant, tuple[int, Effect, float]] = {}
    for variant, of_seed in runs.items():
        seeds = sorted(of_seed.keys() & runs.get(reference, {}).keys())
        if variant == reference or len(seeds) < 2:
            continue
        ours = [getattr(of_seed[seed], score) for seed in seeds]
        theirs = [getattr(runs[reference][seed], score) for seed in seeds]
        found[variant] = len(seeds), effect(ours, theirs), paired_t(np.subtract(ours, theirs))
    # One test a variant is fewer than all pairs of these rows, for which shaffer is Holm's procedure.
    adjusted = shaffer([p for *_, p in found.values()], len(found) + 1)
    return {
        variant: Comparison(*one, float(p)) for (variant, one), p in zip(found.items(), adjusted, strict=True)
    }


def paired_t(differences: np.ndarray) -> float:
    """Return the two-sided p of the paired t test; of differences without spread 1 if they are 0, else 0."""
    from scipy import stats

    rounded = np.round(differences, 9)  # of scores with six digits
    if np.ptp(rounded) == 0:
        return 0.0 if rounded[0] else 1.0
    return float(stats.ttest_1samp(rounded, 0).pvalue)


def markdown(lines: Iterable[Line]) -> str:
    """Return the tables of all settings, and a line for each on what is significant."""
    settings: dict[tuple[str, str], dict[Variant, dict[int, Line]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        settings[line.setting, line.data][line.variant][line.seed] = line
    names = [setting for setting, _ in settings]
    parts = []
    for (setting, data), runs in sorted(settings.items()):
        title = setting if names.count(setting) == 1 else f"{setting}, data {data}"
        parts.append(section(title, runs))
    return "\n\n".join(parts)


def section(title: str, runs: Runs) -> str:
    """Return the table of one setting, its variants in the order of the methods, and what is below it."""
    order = sorted(runs, key=_place)
    compared = {
        (reference, score): compare(runs, reference, score) for reference in REFERENCES for score in SCORES
    }
    head = ["", "seeds", "micro / macro", "macro of nodes with 1-9 / 10-99 / 100+ documents"]
    head += [f"{SCORES[score]} over `{reference.name}`" for reference, score in compared]
    rows = [head, ["---"] * len(head)]
    for variant in order:
        found = list(runs[variant].values())
        scores, bins = (" / ".join(_mean(found, name) for name in group) for group in (tuple(SCORES), BINNED))
        cells = [_cell(comparisons.get(variant)) for comparisons in compared.values()]
        rows.append([f"`{variant.name}`", str(len(found)), scores, bins, *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    verdicts = [_verdict(runs, order, reference, compared) for reference in REFERENCES]
    most = max((len(comparisons) for comparisons in compared.values()), default=0)
    return "\n\n".join([f"**{title}**", table, f"{title}: {' '.join(verdicts)}", _notes(runs, most)])


def _place(variant: Variant) -> tuple[int, bool, bool, bool]:
    plain = variant.loss == "bce", variant.output_init == "prior"
    return METHODS.index(variant.method), variant.label_documents, not plain[0], not plain[1]


def _mean(lines: Sequence[Line], name: str) -> str:
    values = [getattr(line, name) for line in lines]
    return "-" if None in values else f"{100 * fmean(values):.1f}"


def _cell(one: Comparison | None) -> str:
    if one is None:
        return ""
    mean, low, high = (100 * value for value in one.size[:3])
    p = "p < 0.001" if one.p_adjusted < 0.001 else f"p {one.p_adjusted:.3f}"
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] {p}"
    return f"**{text}**" if one.p_adjusted <= ALPHA else text


def _verdict(
    runs: Runs,
    order: Sequence[Variant],
    reference: Variant,
    compared: Mapping[tuple[Variant, str], Mapping[Variant, Comparison]],
) -> str:
    """Return which variants are significantly better than a reference, and which are not."""
    tested = set().union(*(compared[reference, score] for score in SCORES))
    if not tested:
        return f"No variant shares two seeds with `{reference.name}`."
    better: dict[str, list[str]] = {}
    left = [variant for variant in order if variant in tested]
    for score, name in SCORES.items():
        ahead = [each for each in order if each in tested and compared[reference, score][each].is_better]
        better[f"in {name}"] = [f"`{variant.name}`" for variant in ahead]
        left = [variant for variant in left if variant not in ahead]
    better["in neither"] = [f"`{variant.name}`" for variant in left]
    told = "; ".join(f"{where} {', '.join(names) or 'none'}" for where, names in better.items())
    return f"Significantly better than `{reference.name}` {told}."


def _notes(runs: Runs, comparisons: int) -> str:
    """Return how to read the table, and what its runs differ in."""
    notes = [
        "Percent; mean over seeds. Differences are paired by seed, with the 95 % t interval and the p of the "
        f"paired t test, adjusted by Holm over the variants of a column; bold: p <= {ALPHA}."
    ]
    needed = runs_needed(ALPHA, comparisons) if comparisons else None
    seeds = max(len(of_seed) for of_seed in runs.values())
    if needed is not None and seeds < needed:
        notes.append(f"An exact permutation test, without the t test's normality, needs {needed} seeds here.")
    lines = [line for of_seed in runs.values() for line in of_seed.values()]
    for name in ("device", "precision", "commit"):
        values = sorted({getattr(line, name) for line in lines})
        if len(values) > 1:
            notes.append(f"Runs differ in {name}: {', '.join(values)}.")
    return " ".join(notes)
