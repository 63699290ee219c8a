"""Who writes: from a thread id to the label of a line of work."""
