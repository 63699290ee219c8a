"""Lock cycles and fences. Pure: no file, no clock. So far: what a lock file says of its holder."""
