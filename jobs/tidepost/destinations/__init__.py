"""Platforms that receive, one file each; `wire.py` names and imports them."""
