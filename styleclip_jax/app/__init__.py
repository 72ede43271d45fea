"""The page of styleclip-app."""
