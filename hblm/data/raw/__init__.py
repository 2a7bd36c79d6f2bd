"""Readers of raw downloads: archives, texts, tables, XML, spreadsheets."""
