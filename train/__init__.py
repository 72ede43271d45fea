"""Long, resumable training programs."""
