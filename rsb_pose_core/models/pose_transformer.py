"""The Pose Transformer that knows how joints belong together (paper III-C2, Fig. 4C)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.skeleton import H36M_17

Pose = Float[Tensor, 'batch joints 3']


class Recovered(NamedTuple):
    """pose: (B,J,3) metres; attention: (B,heads,J,J) of the last layer, rows query columns."""

    pose: Pose
    attention: Float[Tensor, 'batch heads joints joints']


class Encoder(nn.Module):
    """Multi-head attention and an MLP, each after a LayerNorm and with a shortcut."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: Float[Tensor, 'batch joints width']) -> tuple[Tensor, Tensor]:
        batch, joints, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, joints, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # B heads J width/heads
        scale = (width // self.heads) ** -0.5
        attention = torch.softmax(query @ key.transpose(-1, -2) * scale, -1)  # B heads J J
        mixed = (attention @ value).transpose(1, 2).reshape(batch, joints, width)
        x = x + self._drop(self.projection(mixed))
        return x + self._drop(self.mlp(self.norm_mlp(x))), attention

    def _drop(self, branch: Tensor) -> Tensor:
        """Stochastic depth: leave a branch out for some poses while training."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


class PoseTransformer(nn.Module):
    """Joints as tokens; 16 encoders, one LayerNorm shared by all of them, a linear head.

    `concatenate` follows the paper's words (8.4 M parameters); adding the joint's position to its
    embedding follows the authors' weights (2.1 M). `use_root` adds a token made of the root's
    position, so that the refiner can know how far away the person is.
    """

    def __init__(
        self,
        joints: int = len(H36M_17),
        root: int = H36M_17.root,
        width: int = 128,
        depth: int = 16,
        heads: int = 8,
        mlp_ratio: int = 2,
        drop_path: float = 0.1,
        *,
        concatenate: bool = False,
        use_root: bool = False,
    ) -> None:
        super().__init__()
        self.root, self.concatenate, self.use_root = root, concatenate, use_root
        inner = 2 * width if concatenate else width
        self.embed = nn.Linear(3, width)
        self.position = nn.Parameter(torch.zeros(1, joints, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.root_embed = nn.Linear(3, inner) if use_root else None
        self.encoders = nn.ModuleList(
            [Encoder(inner, heads, mlp_ratio, drop_path * i / (depth - 1)) for i in range(depth)]
        )
        self.norm = nn.LayerNorm(inner)
        self.head = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, 3))

    def forward(self, pose_m: Pose, root_m: Float[Tensor, 'batch 3'] | None = None) -> Recovered:
        """A pose relative to its root in metres -> the coherent pose, relative too.

        root_m: the root's position in the camera frame, read where the model was built with
        `use_root`.
        """
        embedded = self.embed(pose_m)
        if self.concatenate:
            x = torch.cat([embedded, self.position.expand_as(embedded)], -1)
        else:
            x = embedded + self.position
        if self.root_embed is not None and root_m is not None:
            x = x + self.root_embed(root_m / 5)[:, None]  # persons stand within some 5 m
        attention = torch.empty(0)
        for encoder in self.encoders:
            x, attention = encoder(x)
            x = self.norm(x)
        return Recovered(self.head(x), attention)

    def refine(self, xyz_m: Pose) -> Pose:
        """An absolute initial pose in metres -> the refined absolute pose.

        The initial root carries the position; the head corrects it as it does every joint.
        """
        root = xyz_m[:, self.root]
        relative: Tensor = self(xyz_m - root[:, None], root).pose
        return relative + root[:, None]


def attention_confidence(
    attention: Float[Tensor, 'batch heads joints joints'],
) -> Float[Tensor, 'batch joints']:
    """How much all joints look at each one: Eq. (5), summed over heads and queries."""
    return attention.sum((1, 2))


def iterative_recovery(
    model: PoseTransformer,
    pose_m: Pose,
    masked: Tensor,
    padding: Float[Tensor, '3'],
    rounds: int = 2,
    kept_per_round: int = 2,
) -> list[Pose]:
    """Algorithm 1: recover masked joints `rounds` times, keeping the most confident each time.

    pose_m: relative poses; masked: (B,J) bool, as many True in each row. Returns the recovered
    poses of every round, the last one being the result.
    """
    current = torch.where(masked[..., None], padding, pose_m)
    recovered = model(current)
    poses = [recovered.pose]
    for _ in range(rounds - 1):
        confidence = attention_confidence(recovered.attention)
        hidden = confidence.masked_fill(~masked, -torch.inf)
        top = hidden.topk(kept_per_round, dim=1).indices
        keep = functional.one_hot(top, masked.shape[1]).sum(1).bool() & masked
        masked = masked & ~keep
        current = torch.where(masked[..., None], padding, recovered.pose)
        recovered = model(current)
        poses.append(recovered.pose)
    return poses
