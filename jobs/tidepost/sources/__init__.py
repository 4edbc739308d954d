"""Where inferences are logged: one file a kind of source."""
