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

from hblm.taxonomy import Taxonomy

Array = npt.NDArray[Any]


def consistent(values: Array, taxonomy: Taxonomy, how: str) -> Array:
    """Return scores, or sets as booleans, that agree with the tree.

    Args:
        values: (documents, nodes) in taxonomy order; they are not changed.
        taxonomy: the label forest.
        how: raise, cap or none.
    """
    if how == "none":
        return values
    values, parents = values.copy(), np.asarray(taxonomy.parents)
    if how == "raise":
        for level in reversed(taxonomy.levels[1:]):
            order = np.argsort(parents[level.start : level.stop], kind="stable")
            above, starts = np.unique(parents[level.start : level.stop][order], return_index=True)
            highest = np.maximum.reduceat(values[:, level.start : level.stop][:, order], starts, axis=1)
            values[:, above] = np.maximum(values[:, above], highest)
        return values
    for level in taxonomy.levels[1:]:
        own = values[:, level.start : level.stop]
        np.minimum(own, values[:, parents[level.start : level.stop]], out=own)
    return values
