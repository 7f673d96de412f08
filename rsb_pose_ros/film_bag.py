"""`python -m rsb_pose_ros.film_bag`: film a rendered person into a bag with its true poses.

The bag holds what a user's stereo head records: compressed raw images and camera_info of both
cameras, and beside them the truth on /ground_truth/human_pose3d. How samples/ was made.
"""

import argparse
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from geometry_msgs.msg import Point
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header
from tqdm import tqdm

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.rectification import CameraModel
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clips import Clip, read_motion, split_of
from rsb_pose_core.synthesis.film import (
    Frame,
    StereoFilm,
    Take,
    act,
    mhad_like_head,
)
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.people import Casting
from rsb_pose_core.synthesis.shards import SEEDS
from rsb_pose_core.synthesis.textures import TextureBank, read_pictures
from rsb_pose_core.synthesis.wardrobe import Wardrobe
from rsb_pose_ros.bags import message_types
from rsb_pose_ros.msg import HumanPose3D, Joint3D
from rsb_pose_ros.topics import TRUTH_TOPIC

FRAME_ID = 'stereo_left_optical'
START_NS = 1_790_000_000_000_000_000
# visibility in the left view -> state of the true joint
STATES = (Joint3D.MEASURED, Joint3D.INFERRED, Joint3D.INFERRED, Joint3D.MISSING)


def screenplay(clips: list[Clip]) -> list[Take]:
    """Walks up, reaches, walks off, points, walks across: motion of the test split only."""
    test = {clip.name: clip for clip in clips if split_of(clip) == 'test'}

    def clip(part: str) -> Clip:
        return next(clip for name, clip in test.items() if part in name)

    walk, signal, point = clip('walking_5'), clip('signal_5'), clip('traffic_4')
    return [
        Take(walk, 0.1, 1.8, (-0.7, 3.75), 0.93 * np.pi),
        Take(signal, 2.0, 2.6, (-0.1, 1.8), 0.9 * np.pi),
        Take(walk, 0.3, 1.5, (0.0, 2.1), -0.35),
        Take(point, 3.0, 3.0, (-0.6, 3.3), 1.15 * np.pi),
        Take(walk, 0.2, 1.7, (-1.0, 3.1), 0.55 * np.pi, arms=signal),
        Take(point, 12.0, 1.6, (0.8, 2.7), 0.95 * np.pi),
    ]


def header(stamp_ns: int) -> Header:
    """Header of everything that the left camera sees."""
    message = Header(frame_id=FRAME_ID)
    message.stamp.sec, message.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return message


def camera_info(model: CameraModel, stamp_ns: int) -> CameraInfo:
    """The calibration that a driver would publish."""
    info = CameraInfo(header=header(stamp_ns), width=model.width, height=model.height)
    info.distortion_model = model.distortion_model
    info.d = model.d.tolist()
    info.k, info.r, info.p = model.k.reshape(-1), model.r.reshape(-1), model.p.reshape(-1)
    return info


def compressed(rgb: np.ndarray, stamp_ns: int, quality: int) -> CompressedImage:
    """A JPEG as image_transport names it."""
    code = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return CompressedImage(
        header=header(stamp_ns), format='rgb8; jpeg compressed bgr8', data=code.tobytes()
    )


def truth(frame: Frame, stamp_ns: int) -> HumanPose3D:
    """True joints; state tells how the left view shows each."""
    message = HumanPose3D(header=header(stamp_ns), track_id=1, skeleton=H36M_17.name)
    message.track_state, message.confidence = HumanPose3D.TRACK_ACTIVE, 1.0
    for joint, name in enumerate(H36M_17.joint_names):
        u, v, disparity = frame.uvd[joint].tolist()
        x, y, z = frame.xyz_m[joint].tolist()
        message.joints.append(
            Joint3D(
                name=name, position=Point(x=x, y=y, z=z), covariance=np.zeros(9), confidence=1.0,
                state=STATES[frame.visibility[joint]],
                uv_left=np.array([u, v], np.float32),
                uv_right=np.array([u - disparity, v], np.float32),
            )
        )  # fmt: skip
    return message


def write_film(film: StereoFilm, path: Path, quality: int) -> None:
    """Render the film into a new mcap bag."""
    store = message_types()
    cameras = {'left': film.head.left, 'right': film.head.right}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def topic(name: str, kind: str):  # type: ignore[no-untyped-def]
            return writer.add_connection(name, kind, typestore=store)

        images = {
            side: topic(f'/stereo/{side}/image_raw/compressed', 'sensor_msgs/msg/CompressedImage')
            for side in cameras
        }
        infos = {
            side: topic(f'/stereo/{side}/camera_info', 'sensor_msgs/msg/CameraInfo')
            for side in cameras
        }
        poses = topic(TRUTH_TOPIC, 'rsb_pose_ros/msg/HumanPose3D')
        for frame in tqdm(film.frames(), 'film', len(film), unit='pair'):
            stamp_ns = START_NS + frame.stamp_ns
            for side, picture in (('left', frame.left), ('right', frame.right)):
                info = serialize_message(camera_info(cameras[side], stamp_ns))
                writer.write(infos[side], stamp_ns, info)
                image = serialize_message(compressed(picture, stamp_ns, quality))
                writer.write(images[side], stamp_ns, image)
            writer.write(poses, stamp_ns, serialize_message(truth(frame, stamp_ns)))


def main() -> int:
    """Film; 0, or 2 and one sentence where the input is bad."""
    parser = argparse.ArgumentParser(prog='film_bag', description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder of the new bag')
    parser.add_argument(
        '--data',
        type=Path,
        required=True,
        help='folder with motion/ and, where there are some, hdri/',
    )
    parser.add_argument('--rate', type=float, default=15.0, help='pairs a second (%(default)s)')
    parser.add_argument('--seed', type=int, default=5, help='person and room (%(default)s)')
    parser.add_argument('--quality', type=int, default=72, help='of the JPEG (%(default)s)')
    parser.add_argument('--force', action='store_true', help='replace an existing bag')
    args = parser.parse_args()
    try:
        if args.out.exists():
            if not args.force:
                raise RsbPoseError(f'{args.out} exists; give another --out or --force')
            shutil.rmtree(args.out)
        poses, places = act(screenplay(read_motion(args.data / 'motion')), args.rate)
        wardrobe = Wardrobe(body := Body())
        maps = args.data / 'hdri' if (args.data / 'hdri').is_dir() else None
        photos = read_pictures(maps, 'test') if maps else []
        bank = TextureBank(SEEDS['test'] + args.seed, pictures=photos, named=wardrobe.pictures())
        film = StereoFilm(
            Casting(body, wardrobe, bank, 'test'), bank, LightBank(maps, 'test'),
            mhad_like_head(), poses, places, args.rate, args.seed,
        )  # fmt: skip
        write_film(film, args.out, args.quality)
    except (RsbPoseError, OSError) as error:
        print(f'film_bag: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
