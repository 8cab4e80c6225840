"""oegw: an opportunistic-encryption gateway for Linux (RFC 4322)."""

__version__ = "0.1.0"
