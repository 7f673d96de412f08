"""A made-up world for the tests: a red board that moves before a stereo head, and an oracle.

The head is a rectified pair of 320x240 pixels. The board is textured, 24x48 pixels wide and high.
The oracle finds it by its colour in both views, so that what comes out depends on real images,
real rectification and real calibration.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from geometry_msgs.msg import Point
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rsb_pose_core.detection import Box
from rsb_pose_core.people import FrameResult, PersonPose, TrackState
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.bags import message_types
from rsb_pose_ros.images import rgb_to_image
from rsb_pose_ros.loading import LoadedPipeline
from rsb_pose_ros.msg import HumanPose3D, Joint3D

WIDTH, HEIGHT = 320, 240
FX, CX, CY, BASELINE_M = 300.0, 159.5, 119.5, 0.1
BOARD_WIDTH, BOARD_HEIGHT = 24, 48
FRAME = 'left_optical_frame'
PERIOD_NS = 66_666_667
START_NS = 1_700_000_000_000_000_000
JOINTS = len(H36M_17)


def stamped(stamp_ns: int, frame_id: str = FRAME) -> Header:
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return header


def board_position(index: int) -> tuple[int, int, int]:
    """Left column, row and disparity of the board's corner in pair `index`."""
    return 120 + 3 * (index % 30), 80 + index % 7, 12


def pair_images(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectified RGB views of pair `index`."""
    random = np.random.default_rng(7)
    board = random.integers(0, 60, (BOARD_HEIGHT, BOARD_WIDTH, 3), np.uint8)
    board[..., 0] = 230
    u, v, disparity = board_position(index)
    views = []
    for column in (u, u - disparity):
        view = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        view[v : v + BOARD_HEIGHT, column : column + BOARD_WIDTH] = board
        views.append(view)
    return views[0], views[1]


def camera_info(view: str, stamp_ns: int = START_NS) -> CameraInfo:
    info = CameraInfo(header=stamped(stamp_ns), width=WIDTH, height=HEIGHT)
    info.distortion_model = 'plumb_bob'
    info.d = [0.0] * 5
    info.k = [FX, 0.0, CX, 0.0, FX, CY, 0.0, 0.0, 1.0]
    info.r = np.eye(3).reshape(-1)
    shift = 0.0 if view == 'left' else -FX * BASELINE_M
    info.p = [FX, 0.0, CX, shift, 0.0, FX, CY, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def image(index: int, view: str, stamp_ns: int) -> Image:
    return rgb_to_image(pair_images(index)[view == 'right'], stamped(stamp_ns))


def compressed_image(index: int, view: str, stamp_ns: int) -> CompressedImage:
    bgr = pair_images(index)[view == 'right'][..., ::-1]
    data = cv2.imencode('.png', bgr)[1].tobytes()
    return CompressedImage(header=stamped(stamp_ns), format='rgb8; png compressed bgr8', data=data)


def joints_around(uv: np.ndarray, disparity: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (J, 2) and metres (J, 3) of joints spread over the board with this centre."""
    angle = np.linspace(0, 2 * np.pi, JOINTS, endpoint=False)
    pixels = uv + 10 * np.stack([np.cos(angle), 2 * np.sin(angle)], axis=1)
    depth = FX * BASELINE_M / disparity
    xyz = np.stack(
        [(pixels[:, 0] - CX) * depth / FX, (pixels[:, 1] - CY) * depth / FX, [depth] * JOINTS], 1
    )
    return pixels, xyz


def board_center(rgb: np.ndarray) -> np.ndarray | None:
    """Centre (u, v) of the red pixels, None without any."""
    rows, columns = np.nonzero((rgb[..., 0] > 180) & (rgb[..., 1] < 100))
    return None if len(rows) < 20 else np.array([columns.mean(), rows.mean()])


@dataclass
class OraclePipeline:
    """Finds the board. `work` is called first with the pair's number: to be slow or to fail."""

    work: object = None
    calls: int = 0
    resets: int = 0
    stamps_s: list[float] = field(default_factory=list)

    def reset(self) -> None:
        self.resets += 1

    def process(self, left_rgb, right_rgb, calibration, stamp_s) -> FrameResult:
        self.calls += 1
        self.stamps_s.append(stamp_s)
        if self.work is not None:
            self.work(self.calls)
        left, right = board_center(left_rgb), board_center(right_rgb)
        if left is None or right is None:
            return FrameResult((), {'network': 0.0})
        assert float(calibration.baseline_m) > 0
        uv_left, xyz_m = joints_around(left, left[0] - right[0])
        person = PersonPose(
            xyz_m=xyz_m,
            covariance_m2=np.tile(np.diag([1e-4, 1e-4, 4e-4]), (JOINTS, 1, 1)),
            confidence=np.full(JOINTS, 0.9),
            state=np.full(JOINTS, Joint3D.MEASURED, np.uint8),
            uv_left=uv_left,
            uv_right=uv_left - [left[0] - right[0], 0.0],
            box_left=Box(left[0] - 20, left[1] - 30, 40, 60),
            box_right=Box(right[0] - 20, right[1] - 30, 40, 60),
            velocity_mps=np.full(3, np.nan),
            track_id=1,
            track_state=TrackState.ACTIVE,
        )
        return FrameResult((person,), {'network': 0.5})


def oracle_loader(pipeline: OraclePipeline):
    """A loader for StereoPoseNode that hands out this pipeline."""

    def load(parameters) -> LoadedPipeline:
        return LoadedPipeline(
            pipeline, 'oracle', 'oracle.safetensors', '0' * 64, 'cpu', lambda changed: None
        )

    return load


def truth(index: int, stamp_ns: int) -> HumanPose3D:
    """Where the oracle must find the joints of pair `index`; every third joint is occluded."""
    u, v, disparity = board_position(index)
    center = np.array([u + (BOARD_WIDTH - 1) / 2, v + (BOARD_HEIGHT - 1) / 2])
    pixels, xyz_m = joints_around(center, disparity)
    message = HumanPose3D(header=stamped(stamp_ns), track_id=1, skeleton=H36M_17.name)
    for joint, name in enumerate(H36M_17.joint_names):
        x, y, z = xyz_m[joint].tolist()
        state = Joint3D.INFERRED if joint % 3 == 0 else Joint3D.MEASURED
        message.joints.append(
            Joint3D(
                name=name,
                position=Point(x=x, y=y, z=z),
                state=state,
                uv_left=pixels[joint].astype(np.float32),
            )
        )
    return message


def write_bag(path: Path, pairs: int, *, compressed: bool = True, with_right: bool = True) -> Path:
    """A small mcap bag of the board, with the sample's topics."""
    store = message_types()
    kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    make, suffix = (compressed_image, '/compressed') if compressed else (image, '')
    views = ('left', 'right') if with_right else ('left',)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = {
            view: writer.add_connection(f'/stereo/{view}/image_raw{suffix}', kind, typestore=store)
            for view in views
        }
        infos = {
            view: writer.add_connection(
                f'/stereo/{view}/camera_info', 'sensor_msgs/msg/CameraInfo', typestore=store
            )
            for view in views
        }
        poses = writer.add_connection(
            '/ground_truth/human_pose3d', 'rsb_pose_ros/msg/HumanPose3D', typestore=store
        )
        for index in range(pairs):
            stamp_ns = START_NS + index * PERIOD_NS
            for view in views:
                info = camera_info(view, stamp_ns)
                writer.write(infos[view], stamp_ns, serialize_message(info))
                picture = make(index, view, stamp_ns)
                writer.write(images[view], stamp_ns, serialize_message(picture))
            writer.write(poses, stamp_ns, serialize_message(truth(index, stamp_ns)))
    return path
