"""Squares of faces, as tests place them in photos."""

import numpy as np


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]])


def square(x: float, y: float, side: float, degrees: float = 0) -> np.ndarray:
    """[4, 2]: corners in the order of `align.quad`."""
    half = side / 2
    corners = np.array([(-half, -half), (-half, half), (half, half), (half, -half)])
    return turned(corners, degrees) + np.array([x, y])
