"""Owns the HTML pages. Calls services, holds no rule of its own."""
