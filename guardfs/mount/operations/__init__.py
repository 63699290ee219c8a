"""The file system's operations, a family a module, on top of `core.Core`.

Each operation is a plain method: it acts on the directory below, then notes what was done. It returns the
reply, raises OSError for the caller, or returns a `core.Later` where the act may take long. Acting and
noting are kept apart: an error in noting never reaches the caller, and no operation is ever acted twice.
"""
