"""SaveOS: backs up and maintains a fleet of Linux servers."""

__version__ = "0.1.0"
