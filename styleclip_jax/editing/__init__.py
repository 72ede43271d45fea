"""Editing with loaded networks: sessions, faces and editors."""
