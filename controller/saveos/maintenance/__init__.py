"""Owns operations.py, the one table of operations; the routes that start them; attempts at their jobs."""
