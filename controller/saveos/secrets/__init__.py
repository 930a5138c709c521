"""Secrets: the tenant's recovery keys and the sealed escrow of what repositories need."""
