"""Owns rules, alerts and channels: what needs a person, and where it is told."""
