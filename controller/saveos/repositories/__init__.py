"""Owns Borg repositories and the storage servers that hold them."""
