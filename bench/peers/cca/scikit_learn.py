"""scikit-learn's CCA, which iterates component by component: for small shapes only."""

import numpy as np
from sklearn.cross_decomposition import CCA


def directions(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fitted = CCA(n_components=x.shape[1], scale=False, max_iter=2000).fit(x, y)
    return fitted.x_rotations_, fitted.y_rotations_
