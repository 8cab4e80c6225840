"""The form of the answers in JSON."""

SCHEMA = 1
"Version of every JSON answer; it grows when a field is renamed or goes."
