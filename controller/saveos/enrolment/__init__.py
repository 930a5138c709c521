"""Enrolment: tokens, registrations of hosts that ask to join, and their approval."""
