"""The gateway's own key pairs on disk, and the records to publish for them."""
