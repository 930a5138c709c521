"""Owns the archives that check-ins reported."""
