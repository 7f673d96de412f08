"""Rectifying homographies of two views from their fundamental matrix, after Loop and Zhang.

C. Loop and Z. Zhang, "Computing Rectifying Homographies for Stereo Vision", CVPR 1999, the
reference [46] of RSB-Pose. Each homography is H = H_s H_r H_p: a projective part that sends the
epipole to infinity while distorting least, a similarity that lays the epipolar lines on equal
rows, and a shear along the rows that undoes what the projective part did to the picture's shape.

Pixels are (u, v), the centre of the first one at (0, 0). All computations run in coordinates
about the middle of each picture, in half sizes of it: there the paper's normalisation w_c = 1
holds for every projective part that its criterion can choose.
"""

import numpy as np
from jaxtyping import Float
from numpy.polynomial import Polynomial

from rsb_pose_core.calibration import CalibrationError

Matrix = Float[np.ndarray, '3 3']
Vector = Float[np.ndarray, '3']
Points = Float[np.ndarray, 'n 2']
Size = tuple[int, int]  # width, height in pixels


def loop_zhang_homographies(
    fundamental: Matrix, size_left: Size, size_right: Size
) -> tuple[Matrix, Matrix]:
    """H_left and H_right, from pixels to rectified pixels whose rows are the epipolar lines.

    fundamental: F with p_right^T F p_left = 0. In the rectified views F is [i]_x, the cross
    product with (1, 0, 0), up to scale. What the paper leaves open is scaled and shifted so that
    both pictures together keep their area, the first row of either is row 0, and each picture
    begins at column 0.

    Raises CalibrationError where an epipole lies in a picture, which no homography can rectify.
    """
    sizes = (size_left, size_right)
    shifts = [_to_middle(size) for size in sizes]
    centred = _centred(fundamental, shifts)
    projective = _projective_parts(centred, sizes)
    similar = _similarities(centred, *projective)
    views = []
    for shift, size, h_p, h_r in zip(shifts, sizes, projective, similar, strict=True):
        h = h_r @ h_p @ shift
        if (np.column_stack((_corners(size), np.ones(4))) @ h[2]).min() <= 0:
            raise CalibrationError(
                'an epipole lies in its picture, expected cameras that do not see each other; '
                'choose a pair that stands side by side'
            )
        views.append(_shear(h, size) @ h)
    outlines = [_moved(h, _corners(size)) for h, size in zip(views, sizes, strict=True)]
    area = sum((width - 1) * (height - 1) for width, height in sizes)
    scale = float(np.sqrt(area / sum(map(_area, outlines))))
    top = min(corners[:, 1].min() for corners in outlines)
    framed = []
    for h, corners in zip(views, outlines, strict=True):
        frame = np.diag((scale, scale, 1.0))
        frame[:2, 2] = -scale * corners[:, 0].min(), -scale * top
        framed.append(frame @ h / h[2, 2])
    return framed[0], framed[1]


def projective_components(
    fundamental: Matrix, size_left: Size, size_right: Size
) -> tuple[Vector, Vector]:
    """Third rows w of H_left and H_right, 1 at the middle of their pictures.

    w . (u, v, 1) tells by how much a pixel's surroundings shrink: 1 everywhere if undistorted.
    """
    sizes = (size_left, size_right)
    shifts = [_to_middle(size) for size in sizes]
    left, right = _projective_parts(_centred(fundamental, shifts), sizes)
    return left[2] @ shifts[0], right[2] @ shifts[1]


def projective_distortion(w: Vector, size: Size) -> float:
    """Sum of (w . (p - p_c) / w . p_c)^2 over all pixels p of a picture with the middle p_c.

    The paper's criterion for one picture; 0 for an affine map, whose w is (0, 0, 1).
    """
    w = w @ np.linalg.inv(_to_middle(size))
    return float(w @ _spread(size) @ w / w[2] ** 2)


def _projective_parts(f: Matrix, sizes: tuple[Size, Size]) -> tuple[Matrix, Matrix]:
    """H_p of both views: w = [e]_x z and w' = F z for the direction z = (x, y, 0) that minimises
    z^T A z / z^T B z + z^T A' z / z^T B' z.

    A sums (p - p_c)(p - p_c)^T and B is p_c p_c^T, both seen through [e]_x or F. As B is of rank
    one, each fraction is q(t) / l(t)^2 in z = (t, 1), with l linear. Its derivative has a
    numerator of degree 1 over l^3, so that the sum's is of degree 4 (the paper has 7). The
    minimum is at one of its roots or at a direction at infinity: no first guess is needed.
    """
    epipole = np.linalg.svd(f)[2][2]
    lines = [line[:, :2] for line in (np.cross(epipole, np.eye(3)).T, f)]  # z to w and to w'
    numerators, cubes = [], []
    for line, size in zip(lines, sizes, strict=True):
        (a, b), (_, c) = line.T @ _spread(size) @ line
        m, n = line[2]
        numerators.append(Polynomial([b * n - c * m, a * n - b * m]))
        cubes.append(Polynomial([n, m]) ** 3)
    derivative = numerators[0] * cubes[1] + numerators[1] * cubes[0]
    directions = [np.array((1.0, 0.0)), np.array((0.0, 1.0))]
    # where two roots meet, rounding parts them by an imaginary pair
    directions += [np.array((t.real, 1.0)) for t in derivative.roots()]

    def distortion(z: Float[np.ndarray, '2']) -> float:
        total = 0.0
        for line, size in zip(lines, sizes, strict=True):
            w = line @ z
            if w[2] ** 2 <= 1e-20 * (w @ w):
                return np.inf  # the middle of the picture would go to infinity
            total += float(w @ _spread(size) @ w / w[2] ** 2)
        return total

    best = min(directions, key=distortion)
    left, right = np.eye(3), np.eye(3)
    for part, line in zip((left, right), lines, strict=True):
        w = line @ best
        part[2] = w / w[2]
    return left, right


def _similarities(f: Matrix, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """H_r of both views: turns the epipolar lines onto equal rows, heads up."""
    w_a, w_b, _ = left[2]
    a, b = f[2, 1] - w_b * f[2, 2], w_a * f[2, 2] - f[2, 0]
    up = np.diag((np.sign(a), np.sign(a), 1.0)) if a else np.eye(3)
    h_left = np.array([(a, b, 0.0), (-b, a, f[2, 2]), (0.0, 0.0, 1.0)])
    w_a, w_b, _ = right[2]
    a, b = w_b * f[2, 2] - f[1, 2], f[0, 2] - w_a * f[2, 2]
    h_right = np.array([(a, b, 0.0), (-b, a, 0.0), (0.0, 0.0, 1.0)])
    return up @ h_left, up @ h_right


def _shear(h: Matrix, size: Size) -> Matrix:
    """H_s: makes the picture's mid-lines orthogonal again, in their old ratio of lengths."""
    width, height = size[0] - 1.0, size[1] - 1.0
    ends = np.array([(1.0, 0.5), (0.0, 0.5), (0.5, 1.0), (0.5, 0.0)]) * (width, height)
    right, left, bottom, top = _moved(h, ends)
    x, y = right - left, bottom - top
    across = height * width * (x[0] * y[1] - x[1] * y[0])
    shear = np.eye(3)
    shear[0, 0] = (height**2 * x[1] ** 2 + width**2 * y[1] ** 2) / across
    shear[0, 1] = -(height**2 * x[0] * x[1] + width**2 * y[0] * y[1]) / across
    return shear


def _to_middle(size: Size) -> Matrix:
    """From pixels to coordinates about the middle of the picture, in half sizes."""
    width, height = size
    half = (width + height) / 4
    return np.array(
        [
            (1 / half, 0.0, -(width - 1) / 2 / half),
            (0.0, 1 / half, -(height - 1) / 2 / half),
            (0.0, 0.0, 1.0),
        ]
    )


def _centred(fundamental: Matrix, shifts: list[Matrix]) -> Matrix:
    """F between coordinates about the middles, of rank 2 and norm 1."""
    f = np.linalg.inv(shifts[1]).T @ fundamental @ np.linalg.inv(shifts[0])
    u, s, vt = np.linalg.svd(f)
    return np.asarray(u[:, :2] * (s[:2] / s[0]) @ vt[:2])


def _spread(size: Size) -> Matrix:
    """Sum of (p - p_c)(p - p_c)^T over the pixels of a picture, about its middle."""
    width, height = size
    half = (width + height) / 4
    moments = np.array((width**2 - 1, height**2 - 1, 0.0)) / half**2
    return np.asarray(width * height / 12 * np.diag(moments))


def _corners(size: Size) -> Points:
    """Pixel centres at the corners, in order round the picture."""
    return np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (np.array(size) - 1.0)


def _moved(h: Matrix, points: Points) -> Points:
    homogeneous = np.column_stack((points, np.ones(len(points)))) @ h.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _area(polygon: Points) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
