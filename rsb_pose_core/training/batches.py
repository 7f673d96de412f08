"""What one training step sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration

OUTSIDE_IMAGE = 3  # visibility code
TENSORS = ('left', 'right', 'uv_left', 'uv_right', 'xyz_m', 'visibility')  # of a StereoBatch


@dataclass(frozen=True)
class StereoBatch:
    """Crops of both views in uint8 RGB and their labels in crop pixels.

    uv_left, uv_right: (B,J,2); xyz_m: (B,J,3) in the left optical frame; both may be NaN where a
    joint has no label. visibility: (B,2,J), left then right, codes as in the shards. names: where
    each pair comes from, such as its file and number; empty where nobody said.
    """

    left: UInt8[Tensor, 'batch 3 side side']
    right: UInt8[Tensor, 'batch 3 side side']
    uv_left: Float[Tensor, 'batch joints 2']
    uv_right: Float[Tensor, 'batch joints 2']
    xyz_m: Float[Tensor, 'batch joints 3']
    visibility: UInt8[Tensor, 'batch 2 joints']
    calibration: StereoCalibration
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.left)

    @property
    def side(self) -> int:
        return self.left.shape[-1]

    def to(self, device: torch.device) -> 'StereoBatch':
        """Copy to a device; images stay uint8 on the way."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS}
        fields = (value.to(device) for value in self.calibration.fields())
        return replace(self, **moved, calibration=StereoCalibration(*fields))

    def take(self, rows: Sequence[int]) -> 'StereoBatch':
        """Some of the pairs."""
        chosen = list(rows)
        fields = (value[chosen] for value in self.calibration.fields())
        return replace(
            self,
            **{name: getattr(self, name)[chosen] for name in TENSORS},
            calibration=StereoCalibration(*fields),
            names=tuple(self.names[row] for row in chosen) if self.names else (),
        )

    @classmethod
    def join(cls, batches: Sequence['StereoBatch']) -> 'StereoBatch':
        """All pairs of batches of one size, in order."""
        tensors = {n: torch.cat([getattr(batch, n) for batch in batches]) for n in TENSORS}
        fields = zip(*(batch.calibration.fields() for batch in batches), strict=True)
        calibration = StereoCalibration(*(torch.cat(field) for field in fields))
        names = tuple(batch.name(row) for batch in batches for row in range(len(batch)))
        return cls(**tensors, calibration=calibration, names=names)

    def name(self, row: int) -> str:
        """What to call a pair in a message."""
        return self.names[row] if self.names else f'pair {row} of the batch'

    def unusable(self) -> list[str]:
        """Names of pairs with an infinite label or a calibration that is not finite.

        NaN labels are joints without a label and as they should be.
        """
        calibrated = torch.stack(self.calibration.fields(), -1).isfinite().all(-1)
        labels = torch.cat([self.uv_left, self.uv_right, self.xyz_m], -1)
        bad = ~calibrated | labels.isinf().flatten(1).any(1)
        return [self.name(int(row)) for row in bad.nonzero().flatten()]

    def images(
        self,
    ) -> tuple[Float[Tensor, 'batch 3 side side'], Float[Tensor, 'batch 3 side side']]:
        """RGB 0..1 of both views."""
        return self.left.float() / 255, self.right.float() / 255

    def in_view(self, view: int) -> Bool[Tensor, 'batch joints']:
        """Joints with a label inside the crop and the image of view 0 (left) or 1 (right)."""
        uv = (self.uv_left, self.uv_right)[view]
        inside = ((uv >= 0) & (uv <= self.side - 1)).all(-1)  # NaN compares false
        return inside & (self.visibility[:, view] != OUTSIDE_IMAGE)
