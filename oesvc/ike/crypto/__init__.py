"""The arithmetic of IKE, on the cryptography package."""
