"""Ground truth: which inference and which version a label is, and what waits for what."""
