"""Schedules: when operations run by themselves, and the history of what ran."""
