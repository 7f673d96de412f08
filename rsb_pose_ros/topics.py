"""Which topics of a bag are the two cameras, and which is the truth."""

from dataclasses import dataclass

from rsb_pose_ros.bags import Bag, BagError

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
TRUTH_TOPIC = '/ground_truth/human_pose3d'


@dataclass(frozen=True)
class StereoTopics:
    """Topics of a stereo head. transport: raw or compressed, as the node's image_transport."""

    left_image: str
    right_image: str
    left_info: str
    right_info: str
    transport: str

    @classmethod
    def of(cls, bag: Bag, namespaces: tuple[str, str] | None = None) -> 'StereoTopics':
        """Find them by type; the left one is the one that has left in its name.

        camera_info is looked for beside the images. Among more than two image topics a left and a
        right one of otherwise equal names are taken, unrectified before rectified and raw before
        compressed. `namespaces` of the left and the right camera leave out all others. Raises
        BagError where one is missing.
        """
        images = sorted(topic for topic, kind in bag.kinds.items() if kind in (RAW, COMPRESSED))
        heads = _heads(images, bag.kinds, namespaces)
        if not heads:
            where = f' in {" and ".join(namespaces)}' if namespaces is not None else ''
            raise BagError(
                f'the bag {bag.path} has {len(images)} image topics '
                f'({", ".join(images) or "none"}), expected a left and a right one of one type'
                f'{where}; name a stereo bag, or its cameras by --left and --right of bag_player'
            )
        left, right = heads[0]
        transport = 'compressed' if bag.kinds[left] == COMPRESSED else 'raw'
        topics = cls(left, right, _info_beside(left), _info_beside(right), transport)
        bag.require((left, right, topics.left_info, topics.right_info))
        return topics

    @property
    def rectified(self) -> bool:
        """Whether the images are rectified already, by their name."""
        return 'image_rect' in self.left_image

    @property
    def remappings(self) -> tuple[str, ...]:
        """from:=to for the node's own names."""
        image = 'image_rect' if self.rectified else 'image_raw'
        suffix = '/compressed' if self.transport == 'compressed' else ''
        return (
            f'left/{image}{suffix}:={self.left_image}',
            f'right/{image}{suffix}:={self.right_image}',
            f'left/camera_info:={self.left_info}',
            f'right/camera_info:={self.right_info}',
        )


def _heads(
    images: list[str], kinds: dict[str, str], namespaces: tuple[str, str] | None
) -> list[tuple[str, str]]:
    """Pairs of a left and a right image topic of one type, the likeliest first."""
    if len(images) > 2:  # an overlay need not have a camera_info beside it
        images = [topic for topic in images if _info_beside(topic) in kinds]
    if namespaces is not None:
        left, right = (f'/{namespace.strip("/")}/' for namespace in namespaces)
        pairs = [
            (topic, topic.replace(left, right, 1)) for topic in images if topic.startswith(left)
        ]
    elif len(images) == 2:
        first, second = sorted(images, key=lambda topic: 'left' not in topic)
        pairs = [(first, second)]
    else:
        pairs = [(topic, topic.replace('left', 'right')) for topic in images if 'left' in topic]
    alike = [(one, other) for one, other in pairs if kinds[one] == kinds.get(other)]
    return sorted(alike, key=lambda pair: ('image_raw' not in pair[0], pair[0]))


def _info_beside(image_topic: str) -> str:
    """/stereo/left/image_raw/compressed -> /stereo/left/camera_info."""
    namespace = image_topic.removesuffix('/compressed').rpartition('/')[0]
    return f'{namespace}/camera_info'
