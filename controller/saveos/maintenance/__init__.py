"""Owns operations.py, the one table of operations, and the routes that start them."""
