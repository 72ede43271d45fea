"""Edits of loaded networks, for programs and for people."""
