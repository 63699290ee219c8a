"""guardfs: a FUSE file system over an AI gateway's sessions directory."""

__version__ = "0.1.0"
