"""Which topics of a bag are the two cameras."""

from dataclasses import dataclass

from rsb_pose_ros.bags import Bag, BagError

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class StereoTopics:
    """Topics of a stereo head. transport: raw or compressed, as the node's image_transport."""

    left_image: str
    right_image: str
    left_info: str
    right_info: str
    transport: str

    @classmethod
    def of(cls, bag: Bag) -> 'StereoTopics':
        """Find them by type; the left one is the one that has left in its name.

        camera_info is looked for beside the images. Raises BagError where one is missing.
        """
        images = sorted(topic for topic, kind in bag.kinds.items() if kind in (RAW, COMPRESSED))
        kinds = {bag.kinds[topic] for topic in images}
        if len(images) != 2 or len(kinds) != 1:
            raise BagError(
                f'the bag {bag.path} has {len(images)} image topics '
                f'({", ".join(images) or "none"}), expected a left and a right one of one type; '
                'name a stereo bag'
            )
        left, right = sorted(images, key=lambda topic: 'left' not in topic)
        transport = 'compressed' if COMPRESSED in kinds else 'raw'
        topics = cls(left, right, _info_beside(left), _info_beside(right), transport)
        bag.require((left, right, topics.left_info, topics.right_info))
        return topics

    @property
    def remappings(self) -> tuple[str, ...]:
        """from:=to for the node's own names."""
        suffix = '/compressed' if self.transport == 'compressed' else ''
        return (
            f'left/image_raw{suffix}:={self.left_image}',
            f'right/image_raw{suffix}:={self.right_image}',
            f'left/camera_info:={self.left_info}',
            f'right/camera_info:={self.right_info}',
        )


def _info_beside(image_topic: str) -> str:
    """/stereo/left/image_raw/compressed -> /stereo/left/camera_info."""
    namespace = image_topic.removesuffix('/compressed').rpartition('/')[0]
    return f'{namespace}/camera_info'
