"""Arize as a destination (Arrow streams over HTTP)."""
