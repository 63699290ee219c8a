"""Events, the log that they are written to, and its readers."""
