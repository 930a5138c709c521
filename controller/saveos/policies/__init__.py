"""Owns policies: what is backed up, when, how long it is kept."""
