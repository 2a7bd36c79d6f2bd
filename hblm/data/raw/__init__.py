"""Raw downloads, read safely: archives, texts, tables, XML, spreadsheets."""
