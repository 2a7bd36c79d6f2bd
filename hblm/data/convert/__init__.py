"""From raw records to documents, labels and splits: the parts that converters share."""
