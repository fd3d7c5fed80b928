"""What research code commonly does: pseudo-inverses of the joint covariance, roots and one SVD."""

import numpy as np


def directions(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = x.shape[1]
    joint = np.cov(x.astype(np.float64), y.astype(np.float64), rowvar=False)
    root_x, root_y = (_root(np.linalg.pinv(own)) for own in (joint[:d, :d], joint[d:, d:]))
    left, _, right = np.linalg.svd(root_x @ joint[:d, d:] @ root_y)
    return root_x @ left, root_y @ right.T


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
