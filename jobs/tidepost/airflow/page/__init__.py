"""The Uploads page: found by `reading.py`, worded by `shown.py`, laid out by `page.html`, served by `app.py`."""
