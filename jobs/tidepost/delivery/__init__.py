"""From a published slice to a delivery that is closed: sent, asked about, shown to have arrived."""
