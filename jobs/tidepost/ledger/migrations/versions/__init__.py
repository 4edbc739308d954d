"""One module a revision. A revision's number grows, so that a newer ledger is recognised."""
