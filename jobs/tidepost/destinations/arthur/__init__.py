"""Arthur as a destination (API v3)."""
