"""Pilots, workers and sessions, and who gets which. Pure."""
