"""Where slices live: one file a kind of store."""
