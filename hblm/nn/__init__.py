"""Parts of a classifier: modules with plain keyword arguments, and losses.

Axes in the shapes of signatures:

    batch    B    documents of a batch
    tokens   T    tokens of the longest document in the batch, padding included
    width    D    the encoder's hidden width
    dim      P    the width of the document embedding that cascade and heads read
    nodes    N    all nodes of the taxonomy, in taxonomy order
    levels   L    levels of the taxonomy, coarsest first
    source   n_p  nodes of the level before, in the order of the cascade
    target   n_l  nodes of the level that is computed
    some          nodes of one level or of all levels
    groups        groups of siblings among them
    signal        nodes of a conditioning signal: source or target
    inputs   I    input features of a head: P, or 3P for the mix head
    outputs       nodes whose logits a head computes

An empty shape is a scalar.
"""
