"""Definitions: YAML files to a frozen `Job` and `Project`, or errors with file, line and key."""
