"""What `guardfs doctor --bundle` puts together for a bug report: facts, and no message text, no secret, no identity."""
