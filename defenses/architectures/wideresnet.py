"""Pre-activation wide residual networks.

Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.architectures.layers import conv1x1, conv3x3, pool
from defenses.spec import require


class Block(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))).

    Where the shape changes, the shortcut is a 1x1 convolution of relu(bn(x)), not of x.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = None if same_shape else conv1x1(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        skipped = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = skipped + self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out


def require_size(depth: int, widen: int) -> None:
    """``ValueError`` unless depth is 6 n + 4 with n >= 1 and widen at least 1."""
    require(
        depth >= 10 and depth % 6 == 4 and widen >= 1,
        f"wrn{depth}_{widen}: the depth must be 10, 16, 22, 28, ... and the width at least 1",
    )


class WideResNet(nn.Module):
    """WRN-``depth``-``widen``: three stages of (depth - 4) / 6 blocks, 16, 32, 64 x widen channels.

    ``stem_stride`` 2 quarters the cost for larger images. ``ValueError`` as ``require_size``.
    """

    def __init__(
        self, depth: int, widen: int, *, num_classes: int, in_channels: int, stem_stride: int = 1
    ) -> None:
        super().__init__()
        require_size(depth, widen)
        count = (depth - 4) // 6
        self.conv1 = conv3x3(in_channels, 16, stem_stride)
        stages = []
        channels = 16
        for width, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            first = Block(channels, width, stride)
            stages.append(nn.Sequential(first, *(Block(width, width, 1) for _ in range(count - 1))))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stages(self.conv1(x))
        logits: Tensor = self.linear(pool(F.relu(self.bn(out))))
        return logits
