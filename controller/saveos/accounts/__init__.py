"""Owns tenants, users, sessions, API and agent tokens, and the audit trail."""
