"""The only door to ansible-runner: a supervisor process per job attempt, and its events."""
