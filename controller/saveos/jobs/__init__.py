"""Owns jobs: queue, states, leases, log chunks, event streams and dispatch."""
