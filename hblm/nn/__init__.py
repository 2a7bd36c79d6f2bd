"""The parts of a classifier, each plain keyword arguments in, tensors out.

Axes in the shapes of signatures:

    batch    B    documents of a batch
    tokens   T    tokens of the longest document in the batch, padding included
    width    D    the encoder's hidden width
    dim      P    the width of the document embedding that cascade and heads read
    nodes    N    all nodes of the taxonomy, in taxonomy order
    levels   L    levels of the taxonomy, coarsest first
    source   n_p  nodes of the level visited just before
    target   n_l  nodes of the level being visited
    some          nodes of one level or of all levels
    groups        groups of siblings among them
    signal        nodes that a conditioning signal lives on: source or target
    inputs   I    features that a head reads: P, or 3P for the mix head
    outputs       nodes that a head scores

An empty shape is a scalar.
"""
