"""From a cut of the source to a published slice, and what becomes of its files later."""
