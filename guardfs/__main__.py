"""`python -m guardfs` is the same as `guardfs`."""

from guardfs.cli.main import main

main()
