"""Arize's ingestion, as its Python SDKs 7.54 and 8.61 speak to it: batches, records, and what became of them.

What it does with mistakes is this sandbox's reading of the SDKs, whose checks say that they mirror the server's.
"""
