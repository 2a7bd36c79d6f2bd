"""Scores and predicted sets that agree with the tree: no node without its ancestors.

    raise  a parent's score is the maximum of its own and its children's; a set gets all ancestors
    cap    a child's score is at most its parent's; a set loses the nodes without all their ancestors
    none   as they are

Comparing raised or capped scores with one threshold gives the raised or capped set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.engine.tuning import raised
from hblm.taxonomy import Taxonomy

Array = npt.NDArray[Any]


def consistent(values: Array, taxonomy: Taxonomy, how: str) -> Array:
    """Return scores, or sets as booleans, that agree with the tree.

    Args:
        values: (documents, nodes) in taxonomy order; they are not changed.
        taxonomy: the label forest.
        how: raise, cap or none.

    Raises:
        ValueError: `how` is another word.
    """
    if how == "none":
        return values
    if how == "raise":
        return raised(values, taxonomy)
    if how != "cap":
        raise ValueError(f"{how!r} is not one of raise, cap, none")
    values, parents = values.copy(), np.asarray(taxonomy.parents)
    for level in taxonomy.levels[1:]:
        own = values[:, level.start : level.stop]
        np.minimum(own, values[:, parents[level.start : level.stop]], out=own)
    return values
