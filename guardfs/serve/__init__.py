"""What runs beside the daemons, so that it can never slow an operation: metrics, health, the live page."""
