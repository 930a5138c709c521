"""The command saveos: client commands (HTTP only) and server commands."""
