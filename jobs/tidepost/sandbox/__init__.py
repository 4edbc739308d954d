"""A local platform to upload to: for trials, demos and tests, never for production, and neither Arthur nor Arize.

It speaks Arthur's ingestion API (v3, as Arthur's Python SDK 3.33.3 speaks it) and Arize's (as its Python SDKs 7.54
and 8.61 speak it) on 127.0.0.1, keeps what it gets on disk, and misbehaves on demand: lost replies, throttling,
resets, rows dropped after a yes. What it accepted it never loses and never loads twice, even when it is killed; so a
count that is wrong is the uploader's.

Importing this package is cheap: the web framework is imported by `app` and `server` only.
"""

from tidepost.sandbox.process import SandboxProcess
from tidepost.sandbox.settings import Fault, Settings

__all__ = ["Fault", "SandboxProcess", "Settings"]
