"""The Pose Transformer that knows how joints belong together (paper III-C2, Fig. 4C)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.skeleton import H36M_17

Pose = Float[Tensor, 'batch joints 3']
Mask = Bool[Tensor, 'batch joints']
Confidence = Float[Tensor, 'batch joints']
Attention = Float[Tensor, 'batch heads joints joints']

PADDING_M = 0.0  # every coordinate of the padding joint m that stands for a masked one
CERTAINTY = 1e-3  # confidences are taken to be that far from 0 and 1
# The joints that the authors' program can put back to where they were before the refinement.
EXTREMITIES = ('right_ankle', 'left_ankle', 'head', 'right_wrist', 'left_wrist')


class Recovered(NamedTuple):
    """pose: (B,J,3) metres; attention: of every layer, first to last, each (B,heads,J,J).

    attention[l][:, h, a, b] says how much joint a looks at joint b; a row sums to 1.
    """

    pose: Pose
    attention: tuple[Attention, ...]


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

    def forward(
        self, x: Float[Tensor, 'batch joints width'], log_trust: Confidence | None = None
    ) -> tuple[Tensor, Tensor]:
        """log_trust, (B,J): what is added to every logit of the attention paid to a joint.

        The attention is a by-product: 17 tokens are too few for a fused kernel to pay.
        """
        batch, joints, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, joints, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # B heads J width/heads
        logits = (query * (width // self.heads) ** -0.5) @ key.transpose(-1, -2)
        if log_trust is not None:
            logits = logits + log_trust[:, None, None]
        attention = torch.softmax(logits, -1)  # B heads J J
        mixed = (attention @ value).transpose(1, 2).reshape(batch, joints, width)
        x = x + self._drop(self.projection(mixed))
        return x + self._drop(self.mlp(self.norm_mlp(x))), attention

    def _drop(self, branch: Tensor) -> Tensor:
        """Stochastic depth: leave a branch out for some poses while training."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * kept.to(branch.dtype) / (1 - self.drop_path)


class PoseTransformer(nn.Module):
    """Joints as tokens; 16 encoders, one LayerNorm shared by all of them, a linear head.

    `concatenate` follows the paper's words (8.4 M parameters); adding the joint's position to its
    embedding follows the authors' weights (2.1 M). `relative` poses have their root at the origin
    (better in the paper's Table V); else they stay in the camera's frame. Beyond the paper,
    `use_root` adds a token made of the root's position, so that the refiner can know how far away
    the person is; `gated` tells every token its joint's confidence, and lets a joint take only a
    part g of its correction, y = x + g (PPT(x) - x), where g is a logistic regression of its last
    token. `use_confidence` builds Table V's conf_mask. `keep_extremities` is the authors' switch
    that puts the initial ankles, head and wrists back.
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
        relative: bool = True,
        use_root: bool = False,
        use_confidence: bool = False,
        gated: bool = False,
        keep_extremities: bool = False,
    ) -> None:
        super().__init__()
        self.root, self.concatenate, self.relative = root, concatenate, relative
        self.keep_extremities = keep_extremities
        inner = 2 * width if concatenate else width
        self.embed = nn.Linear(3, width)
        self.position = nn.Parameter(torch.zeros(1, joints, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.root_embed = nn.Linear(3, inner) if use_root else None
        self.confidence_head: nn.Linear | None = None
        self.confidence_embed: nn.Linear | None = None
        self.gate: nn.Linear | None = None
        self.encoders = nn.ModuleList(
            [Encoder(inner, heads, mlp_ratio, drop_path=0.0) for _ in range(depth)]
        )
        self.set_drop_path(drop_path)
        self.norm = nn.LayerNorm(inner)
        self.head = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, 3))
        if use_confidence:
            self.add_confidence_head()
        if gated:
            self.add_gate()

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth, rising from 0 in the first block to `rate` in the last."""
        last = max(len(self.encoders) - 1, 1)
        for number, encoder in enumerate(self.encoders):
            encoder.drop_path = rate * number / last  # type: ignore[assignment]

    def add_confidence_head(self) -> None:
        """Let the first layer heed confidences, also after a pre-training without: conf_mask."""
        self.confidence_head = nn.Linear(1, 1)
        nn.init.ones_(self.confidence_head.weight)
        nn.init.zeros_(self.confidence_head.bias)

    def add_gate(self) -> None:
        """Let every joint weigh its correction, also after a pre-training without: `gated`.

        It begins with half of each correction, whatever the confidences.
        """
        inner = self.norm.normalized_shape[0]
        self.confidence_embed = nn.Linear(1, inner)
        self.gate = nn.Linear(inner, 1)
        for fresh in (self.confidence_embed, self.gate):
            nn.init.zeros_(fresh.weight)
            nn.init.zeros_(fresh.bias)

    def forward(
        self,
        pose_m: Pose,
        root_m: Float[Tensor, 'batch 3'] | None = None,
        confidence: Confidence | None = None,
    ) -> Recovered:
        """A pose in metres, relative to its root or not as the model is -> the coherent pose.

        root_m: the root's position in the camera frame, read where the model was built with
        `use_root`. confidence: 0..1 of each joint, read where it was built with `gated` or
        `use_confidence`. The latter's head regresses its logit to a trust t in 0..1, and the first
        layer's attention becomes A(a,b) t_b / sum_b A(a,b) t_b, so that less is made of joints
        that are not trusted (IV-D4). The head is one logistic regression for all joints.
        """
        embedded = self.embed(pose_m)
        if self.concatenate:
            x = torch.cat([embedded, self.position.expand_as(embedded)], -1)
        else:
            x = embedded + self.position
        if self.root_embed is not None and root_m is not None:
            x = x + self.root_embed(root_m / 5)[:, None]  # persons stand within some 5 m
        trust = None
        if confidence is not None:
            logit = torch.logit(confidence.float(), eps=CERTAINTY)[..., None]
            if self.confidence_embed is not None:
                x = x + self.confidence_embed(logit)
            if self.confidence_head is not None:
                trust = functional.logsigmoid(self.confidence_head(logit)[..., 0])
        layers: list[Tensor] = []
        for encoder in self.encoders:
            x, attention = encoder(x, trust)
            x = self.norm(x)
            layers.append(attention)
            trust = None  # the first layer only
        recovered = self.head(x)
        if self.gate is not None:
            recovered = torch.lerp(pose_m.to(recovered), recovered, torch.sigmoid(self.gate(x)))
        return Recovered(recovered, tuple(layers))

    def refine(
        self,
        xyz_m: Pose,
        *,
        masked: Mask | None = None,
        confidence: Confidence | None = None,
    ) -> Pose:
        """An absolute initial pose in metres -> the refined absolute pose.

        The initial root carries the position of a relative pose; the head corrects it as it does
        every joint. Joints that are `masked` are replaced by the padding joint (Table V's
        occ_mask); `confidence` as in forward (e.g. its conf_mask); neither is its no_mask.
        """
        root = xyz_m[:, self.root]
        origin = root[:, None] if self.relative else torch.zeros_like(root[:, None])
        pose = xyz_m - origin
        if masked is not None:
            pose = pad_joints(pose, masked)
        refined: Tensor = self(pose, root, confidence).pose + origin
        if self.keep_extremities:
            kept = [H36M_17.index(name) for name in EXTREMITIES]
            refined = refined.index_copy(
                1, torch.tensor(kept, device=refined.device), xyz_m[:, kept].to(refined.dtype)
            )
        return refined


def pad_joints(pose_m: Pose, masked: Mask) -> Pose:
    """The masked pose Y^m: the padding joint m where a joint is masked."""
    return pose_m.masked_fill(masked[..., None], PADDING_M)
