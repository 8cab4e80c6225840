"""ISAKMP messages on the wire: RFC 2408 section 3."""
