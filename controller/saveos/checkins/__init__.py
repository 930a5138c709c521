"""Owns what agents tell: the runs of backups and restores, idempotent by run id."""
