"""Owns hosts and groups, their SSH host keys, and the fleet as Ansible inventory."""
