"""A table drawn: text formats, HTML, figures."""
