"""The 46,985 rows of WOS without texts: codes of the published ids, names by their published counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

DOMAINS = ["CS", "ECE", "Psychology", "MAE", "Civil", "Medical", "biochemistry"]  # by YL1
# Areas that share a code, with their rows in the order in which their first ones come.
SHARED: dict[tuple[str, str], dict[str, int]] = {
    ("1", "10"): {"Electric motor": 372, "Satellite radio": 148, "Single-phase electric power": 6},
    ("4", "4"): {"Water Pollution": 446, "Bamboo as a Building Material": 2, "Underwater Windmill": 1},
    ("6", "1"): {"Cell biology": 552, "DNA/RNA sequencing": 14},
    ("4", "10"): {"Smart Material": 363, "Transparent Concrete": 3, "Nano Concrete": 7},
    ("1", "9"): {"Electrical generator": 240, "Analog signal processing": 407},
    ("4", "1"): {"Geotextile": 419, "Highway Network System": 4},
    ("5", "7"): {"Atrial Fibrillation": 294, "Depression": 130},
    ("5", "10"): {"Bipolar Disorder": 260, "Schizophrenia": 38},
    ("5", "17"): {"Digestive Health": 95, "Outdoor Health": 2},
}
BY_Y = {
    "27": "Satellite radio",
    "76": "Bamboo as a Building Material",
    "40": "Depression",
    "43": "Schizophrenia",
}


def rows(oracle: Path, tree: Path) -> list[tuple[str, str, str, str, str]]:
    """Return Y1, Y2, Y, Domain and area of each row.

    Args:
        oracle: the folder of YL1.txt, YL2.txt, Y.txt and label_counts_after_merge.tsv.
        tree: the published taxonomy file.
    """
    y1, y2, y = ((oracle / f"{name}.txt").read_text().split() for name in ("YL1", "YL2", "Y"))
    counts = published_counts(oracle)
    children = {line.split("\t")[0]: line.split("\t")[1:] for line in tree.read_text().splitlines()}
    named: dict[tuple[str, str], Iterator[str]] = {}
    free = defaultdict(list)  # areas by domain and count, those of shared codes left out
    taken = {name for names in SHARED.values() for name in names}
    for domain in DOMAINS:
        for area in sorted(children[domain], reverse=True):
            if area not in taken or (area in ("Depression", "Schizophrenia") and domain == "Psychology"):
                free[domain, counts[area]].append(area)
    for code, number in sorted(Counter(zip(y1, y2, strict=True)).items()):
        if code in SHARED:
            named[code] = _in_order({k: n for k, n in SHARED[code].items() if k not in BY_Y.values()})
        else:
            named[code] = iter([free[DOMAINS[int(code[0])], number].pop()] * number)
    found = []
    for a, b, c in zip(y1, y2, y, strict=True):
        by_y = BY_Y.get(c, "")
        area = by_y if by_y in SHARED.get((a, b), ()) else next(named[a, b])
        found.append((a, b, c, DOMAINS[int(a)], area))
    return found


def published_counts(oracle: Path) -> dict[str, int]:
    """Return the documents of each name after the published merge."""
    lines = (oracle / "label_counts_after_merge.tsv").read_text().splitlines()
    return {name: int(count) for name, count in (line.split("\t") for line in lines)}


def _in_order(names: dict[str, int]) -> Iterator[str]:
    """Yield one of each, then the rest."""
    yield from names
    for name, count in names.items():
        yield from [name] * (count - 1)
