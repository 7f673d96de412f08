"""The skeleton: which joints there are, how they hang together, how left mirrors right."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Skeleton:
    """Joint names in network order, each joint's parent (-1 at the root) and mirror image."""

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    mirror: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.joint_names)
        if len(self.parents) != count or len(self.mirror) != count:
            raise ValueError(
                f'skeleton {self.name}: {count} joint names need as many parents and mirrors, '
                f'got {len(self.parents)} and {len(self.mirror)}'
            )

    def __len__(self) -> int:
        return len(self.joint_names)

    @property
    def root(self) -> int:
        """Index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) of every bone."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    def index(self, joint_name: str) -> int:
        return self.joint_names.index(joint_name)


# Human3.6M's 17 joints in the order of the RSB-Pose authors (field order of their predictions).
H36M_17 = Skeleton(
    name='h36m_17',
    joint_names=(
        'right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee', 'left_ankle',
        'pelvis', 'spine', 'neck', 'head', 'right_wrist', 'right_elbow', 'right_shoulder',
        'left_shoulder', 'left_elbow', 'left_wrist', 'nose',
    ),
    parents=(1, 2, 6, 6, 3, 4, -1, 6, 7, 16, 11, 12, 8, 8, 13, 14, 8),
    mirror=(5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10, 16),
)  # fmt: skip

# COCO's 17 keypoints in COCO's order; the nose is the root as there is no pelvis.
COCO_17 = Skeleton(
    name='coco_17',
    joint_names=(
        'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder',
        'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip',
        'right_hip', 'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
    ),
    parents=(-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    mirror=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
)  # fmt: skip
