"""RFC 4301's words as plain data: flows, forwarding policies, security associations."""
