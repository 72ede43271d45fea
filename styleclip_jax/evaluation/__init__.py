"""Measures of edits."""
