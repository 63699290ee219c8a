"""What must survive a restart of the guard."""
