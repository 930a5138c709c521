"""Upkeep: the controller cares for itself; it spools its own backup, and forgets old logs."""
