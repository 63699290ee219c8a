"""From a kernel request to an event, and from a verdict to a reply. Translates, and does nothing else.

The path of one request: `loop` waits for it, libfuse and pyfuse3 parse it, `dispatch` hands it to one method
of `filesystem.FileSystem` (a family of operations a module under `operations/`), which acts on the directory
below (`backing`, `descriptors`) and then tells the audit log who did it (`caller`, `guardfs.lanes.process`).
"""
