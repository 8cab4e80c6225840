"""RFC 4322 without I/O: connection classes, connections, and their state machine."""
