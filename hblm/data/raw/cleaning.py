"""The published cleanings of texts, each an option; the default is none of them, the text as it is.

Written from what the preparation scripts of the papers do, step by step; where two sets were cleaned
differently, both are here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

# The English stop words of NLTK 3.4 (179), as HiAGM and HiTIN use them.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves
    he him his himself she she's her hers herself it it's its itself they them their theirs themselves
    what which who whom this that that'll these those am is are was were be been being have has had
    having do does did doing a an the and but if or because as until while of at by for with about
    against between into through during before after above below to from up down in out on off over
    under again further then once here there when where why how all any both each few more most other
    some such no nor not only own same so than too very s t can will just don don't should should've now
    d ll m o re ve y ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't
    haven haven't isn isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't
    wasn wasn't weren weren't won won't wouldn wouldn't
    """.split()  # noqa: SIM905 (a list would be three pages)
)

_CONTRACTIONS = re.compile("'s|'ve|n't|'re|'d|'ll")
_PUNCTUATION = re.compile(r"""[,."!()?]""")
_BLANKS = re.compile(r"\s{2,}")


def _spaced(text: str) -> str:
    """Put a space before 's, 've, n't, 're, 'd and 'll: the steps that all these scripts share."""
    return _CONTRACTIONS.sub(lambda match: f" {match.group()}", text.strip().strip('"'))


def hpt(text: str) -> str:
    """Clean as HPT, HGCLR and HBGL do: contractions apart, blanks squeezed, lower case, nothing removed."""
    return _BLANKS.sub(" ", _spaced(text)).strip().lower()


def _words(text: str) -> list[str]:
    cleaned = _BLANKS.sub(" ", _PUNCTUATION.sub(" ", _spaced(text))).strip().lower()
    return [word for word in cleaned.split() if word not in STOP_WORDS]


def hiagm(text: str) -> str:
    """Clean as HiAGM does WOS, HiTIN RCV1 too: ASCII letters and digits, no stop words or single letters."""
    kept = re.sub(r"[^A-Za-z0-9(),!?.'`]", " ", text.strip().strip('"'))
    return " ".join(word for word in _words(kept) if len(word) > 1)


def hiagm_nyt(text: str) -> str:
    """Clean as HiAGM and HiTIN do NYT: no digits either, but words of one letter; U.S. becomes us."""
    kept = re.sub(r"[^A-Za-z(),!?.'`]", " ", text.strip().strip('"'))
    return " ".join(_words(re.sub("[,?.]", "", kept)))


Cleaning = Literal["none", "lower", "hpt", "hiagm", "hiagm_nyt"]

CLEANINGS: Mapping[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "lower": str.lower,
    "hpt": hpt,
    "hiagm": hiagm,
    "hiagm_nyt": hiagm_nyt,
}


def plain_name(label: str) -> str:
    """Return a label's name without blanks around it, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", label.strip())
