"""Rows on their way into files: shaped, judged, told apart from those that were published, written."""
