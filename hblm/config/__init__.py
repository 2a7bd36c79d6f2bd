"""Configurations: their keys, the groups and options of YAML files, how they compose."""
