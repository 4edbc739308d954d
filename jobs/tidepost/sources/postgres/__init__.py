"""Tables, views and queries of PostgreSQL as a source."""
