"""Page of styleclip-app: edits of faces with sliders in the browser."""
