"""Scores and errors to one page that people read."""
