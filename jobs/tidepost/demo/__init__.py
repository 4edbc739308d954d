"""The demo: a delay model, the log of its inferences on real flights, and a project that uploads them."""
