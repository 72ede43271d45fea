"""Photos: reading, alignment, crops, and pasting back."""
