"""Owns restore requests: archive, paths, destination."""
