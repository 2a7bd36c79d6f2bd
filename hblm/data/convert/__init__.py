"""Parts that converters share: from raw records to documents, labels and splits."""
