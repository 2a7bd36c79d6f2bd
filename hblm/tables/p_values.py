"""Names of the tests of two rows, the smallest p that each can give, and p-values in words."""

from __future__ import annotations

from hblm.tables.document_tests import RESAMPLES
from hblm.tables.significance import MOST_EXACT, N_FLIPS, smallest_p
from hblm.tables.table import plural

EXACT = "exact paired permutation test over seeds"
DRAWN = f"paired permutation test over seeds with {N_FLIPS:,} drawn permutations"
DOCUMENTS = "approximate randomisation over documents"
_WITHIN = 1 + 1e-9  # of a p-value and the smallest one, computed in two ways


def name_of_test(n: int, *, over_documents: bool = False) -> str:
    """Return the name of the test over documents, or of the paired permutation test over n seeds."""
    if over_documents:
        return DOCUMENTS
    return EXACT if n <= MOST_EXACT else DRAWN


def smallest_p_of(n: int, *, over_documents: bool = False) -> float:
    """Return the smallest p that the test over documents, or over n seeds, can give."""
    return 1 / (RESAMPLES + 1) if over_documents else smallest_p(n)


def source_of_p(test: str, n: int) -> str:
    """Return what bounds the p of a test from below: its seeds, or the permutations or resamples drawn."""
    drawn = {DRAWN: f"{N_FLIPS:,} permutations", DOCUMENTS: f"{RESAMPLES:,} resamples"}
    return drawn.get(test) or plural(n, "seed")


def p_in_words(p: float, least: float = 0, source: str = "", why: str = "") -> str:
    """Return "p = 0.0625, the smallest that 5 seeds can give", the p alone, or "no test: no seed is shared".

    Args:
        p: of a test.
        least: the smallest that the test can give.
        source: what gives it, as `source_of_p` returns it.
        why: the reason where there is no test.
    """
    if why:
        return f"no test: {why}"
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3g}"
    return f"{text}, the smallest that {source} can give" if least and p <= least * _WITHIN else text
