"""Holds the mount, starts the daemon, runs the agent."""
