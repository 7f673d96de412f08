"""Pictures of what was found: skeletons on images, and skeletons in space beside the truth."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rsb_pose_core.people import JointState, PersonPose, TrackState
from rsb_pose_core.skeleton import H36M_17, Skeleton

Image = NDArray[np.uint8]
Array = NDArray[np.float64]
Color = tuple[int, int, int]

# RGB, told apart by the colour-blind too (Okabe and Ito).
RIGHT_SIDE: Color = (213, 94, 0)
LEFT_SIDE: Color = (0, 158, 230)
CENTRE: Color = (240, 228, 66)
LOST: Color = (150, 150, 150)
INK, PAPER = (255, 255, 255), (20, 20, 20)
# Coordinates with this many binary digits after the point, for cv2's sub-pixel drawing.
SUBPIXEL_BITS = 4


def bone_colors(skeleton: Skeleton = H36M_17) -> tuple[Color, ...]:
    """A colour for each of skeleton.bones: by side, told by the child joint's mirror image."""
    return tuple(_side_color(skeleton, child) for _, child in skeleton.bones)


def draw_people(
    rgb: Image, people: Sequence[PersonPose], *, view: str = 'left', skeleton: Skeleton = H36M_17
) -> Image:
    """A copy of a rectified RGB image with everybody's skeleton, id and depth on it.

    Joints that were measured are discs, those seen in one view rings, inferred ones crosses, and
    bones to an inferred joint are thin. `view` is 'left' or 'right'.
    """
    canvas = rgb.copy()
    size = max(1, round(canvas.shape[0] / 240))
    for person in people:
        if person.track_state is TrackState.LOST:
            _draw_box(canvas, person, view, size)
            continue
        uv = person.uv_left if view == 'left' else person.uv_right
        for (parent, child), color in zip(skeleton.bones, bone_colors(skeleton), strict=True):
            if np.isfinite(uv[[parent, child]]).all():
                sure = min(person.state[[parent, child]]) >= JointState.ONE_VIEW
                thickness = 2 * size if sure else size
                ends = _fixed_point(uv[parent]), _fixed_point(uv[child])
                cv2.line(canvas, *ends, PAPER, thickness + 2, cv2.LINE_AA, SUBPIXEL_BITS)
                cv2.line(canvas, *ends, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        for joint, pixel in enumerate(uv):
            if np.isfinite(pixel).all():
                _draw_joint(canvas, pixel, JointState(int(person.state[joint])), size)
        _draw_label(canvas, person, view, size)
    return canvas


def side_by_side(left_rgb: Image, right_rgb: Image, people: Sequence[PersonPose]) -> Image:
    """Both rectified views with the people on them, (H, 2 W, 3): equal rows lie beside another."""
    views = (draw_people(left_rgb, people), draw_people(right_rgb, people, view='right'))
    return np.concatenate(views, axis=1)


def skeleton_figure(
    predicted_m: Sequence[Array],
    truth_m: Sequence[Array] = (),
    *,
    title: str = '',
    size: tuple[int, int] = (1200, 600),
    skeleton: Skeleton = H36M_17,
) -> Image:
    """Poses (J, 3), metres in the left optical frame, drawn in space: RGB of size (width, height).

    Once from the camera's side and once from above; the truth is grey and dashed.
    """
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib's canvas and 3D axes have no types
    for index, (name, elevation, azimuth) in enumerate(
        (('from the side', 12.0, -60.0), ('from above', 88.0, -90.0))
    ):
        axes: Any = figure.add_subplot(1, 2, index + 1, projection='3d')
        for pose in truth_m:
            _plot_pose(axes, pose, skeleton, truth=True)
        for pose in predicted_m:
            _plot_pose(axes, pose, skeleton, truth=False)
        _set_limits(axes, [*predicted_m, *truth_m])
        axes.view_init(elev=elevation, azim=azimuth)
        axes.set_proj_type('ortho')
        axes.set_title(name, fontsize=10, y=0.94)
        if elevation > 80:
            axes.set_zticks([])
            axes.set_zlabel('')
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.04, top=0.96, wspace=0.05)
    figure.suptitle(title)
    if truth_m:
        figure.text(0.5, 0.02, 'colour: estimated, grey dashed: truth', ha='center')
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3].copy()


def _side_color(skeleton: Skeleton, joint: int) -> Color:
    if skeleton.mirror[joint] == joint:
        return CENTRE
    return LEFT_SIDE if skeleton.joint_names[joint].startswith('left') else RIGHT_SIDE


def _fixed_point(uv: Array) -> tuple[int, int]:
    """Pixels for cv2 with SUBPIXEL_BITS; far-off points are kept where cv2 can count to."""
    u, v = np.clip(uv, -4000, 8000) * 2**SUBPIXEL_BITS
    return round(u), round(v)


def _draw_joint(canvas: Image, uv: Array, state: JointState, size: int) -> None:
    center = _fixed_point(uv)
    radius = 2 * size << SUBPIXEL_BITS
    if state is JointState.INFERRED:
        for dx, dy in ((radius, radius), (radius, -radius)):
            ends = (
                (center[0] - dx, center[1] - dy),
                (center[0] + dx, center[1] + dy),
            )
            cv2.line(canvas, *ends, INK, size, cv2.LINE_AA, SUBPIXEL_BITS)
        return
    thickness = -1 if state is JointState.MEASURED else size
    cv2.circle(canvas, center, radius, INK, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_label(canvas: Image, person: PersonPose, view: str, size: int) -> None:
    """Id and depth above the person, inside the picture."""
    box = person.box_left if view == 'left' else person.box_right
    text = f'{person.track_id}: {person.root_m[2]:.2f} m'
    scale = 0.4 * size
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, size)
    x = int(np.clip(box.x, 0, max(canvas.shape[1] - width, 0)))
    y = int(np.clip(box.y - 3 * size, height, canvas.shape[0] - 1))
    for color, thickness in ((PAPER, size + 2), (INK, size)):
        cv2.putText(
            canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA
        )


def _draw_box(canvas: Image, person: PersonPose, view: str, size: int) -> None:
    box = (person.box_left if view == 'left' else person.box_right).clipped(
        canvas.shape[1], canvas.shape[0]
    )
    corner = round(box.x), round(box.y)
    opposite = round(box.x + box.width), round(box.y + box.height)
    cv2.rectangle(canvas, corner, opposite, LOST, size)


def _plot_pose(axes: Any, pose: Array, skeleton: Skeleton, *, truth: bool) -> None:
    """Optical axes (x right, y down, z forward) to a room's: x right, y forward, z up."""
    room = np.stack([pose[:, 0], pose[:, 2], -pose[:, 1]], axis=1)
    for (parent, child), color in zip(skeleton.bones, bone_colors(skeleton), strict=True):
        ends = room[[parent, child]].T
        if not np.isfinite(ends).all():
            continue
        if truth:
            axes.plot(*ends, color='0.45', linestyle='--', linewidth=1.2)
        else:
            darker = tuple(0.85 * channel / 255 for channel in color)
            axes.plot(*ends, color=darker, linewidth=2.5)


def _set_limits(axes: Any, poses: Sequence[Array]) -> None:
    """Equal scales on all axes, everything inside."""
    axes.set_xlabel('x right (m)')
    axes.set_ylabel('z forward (m)')
    axes.set_zlabel('-y up (m)')
    points = np.concatenate([*poses, np.zeros((0, 3))])
    points = points[np.isfinite(points).all(axis=1)]
    low, high = (points.min(0), points.max(0)) if len(points) else (-np.ones(3), np.ones(3))
    center, half = (low + high) / 2, max(float((high - low).max()) / 2, 0.5) * 1.05
    axes.set_xlim(center[0] - half, center[0] + half)
    axes.set_ylim(center[2] - half, center[2] + half)
    axes.set_zlim(-center[1] - half, -center[1] + half)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_box_aspect((1, 1, 1))
