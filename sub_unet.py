"""The U-Net that corrects one level of the pyramid (Afifi et al., CVPR 2021)."""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_NORM_GROUPS = 8


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions, each followed by (GroupNorm and) LeakyReLU(0.2)."""

    def __init__(
        self, in_channels: int, out_channels: int, has_group_norm: bool, padding_mode: str
    ):
        layers = []
        for channels in (in_channels, out_channels):
            layers.append(
                nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode=padding_mode)
            )
            if has_group_norm:
                groups = gcd(MAX_NORM_GROUPS, out_channels)
                layers.append(nn.GroupNorm(groups, out_channels))
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers)


class SubUNet(nn.Module):
    """The U-Net that corrects one level of the pyramid.

    Args:
        layer_count: encoder stages, each halving the sides; the bridge comes on top.
        first_channels: channels of the first stage; each further one has twice as many.
        has_group_norm: normalise after each convolution (the paper does not). It sees one
            photo at a time, unlike batch norm, so training and use agree.
        padding_mode: what convolutions see beyond the border, as nn.Conv2d has it: "zeros" (the
            paper), by which the network knows where the photo's frame is, or "replicate".
        out_channels: channels of the output, which starts at zero.
    """

    def __init__(
        self,
        layer_count: int,
        first_channels: int,
        has_group_norm: bool = False,
        padding_mode: str = "zeros",
        out_channels: int = 3,
    ):
        super().__init__()
        widths = [first_channels * 2**stage for stage in range(layer_count + 1)]
        self.encoder = nn.ModuleList()
        self.upsamplings = nn.ModuleList()
        self.decoder = nn.ModuleList()
        in_channels = 3
        for width in widths[:-1]:
            self.encoder.append(ConvBlock(in_channels, width, has_group_norm, padding_mode))
            in_channels = width
        self.bridge = ConvBlock(in_channels, widths[-1], has_group_norm, padding_mode)
        for width in reversed(widths[:-1]):
            self.upsamplings.append(nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2))
            self.decoder.append(ConvBlock(2 * width, width, has_group_norm, padding_mode))
        self.head = nn.Conv2d(first_channels, out_channels, kernel_size=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if not has_group_norm:  # the faster layout for convolutions, the slower one for GroupNorm
            self.to(memory_format=torch.channels_last)

    @property
    def is_untrained(self) -> bool:
        """True while the head is zero, as it starts: whatever comes in, zero comes out."""
        return not (self.head.weight.any() or self.head.bias.any())

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, out_channels, H, W), any H and W from 1 up."""
        features, skips = image, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
            # Odd sides round up, and are cut again on the way back: padding the photo instead
            # would show the network what no photo of training had.
            features = F.max_pool2d(features, 2, ceil_mode=True)
        features = self.bridge(features)
        for upsampling, stage in zip(self.upsamplings, self.decoder, strict=True):
            skip = skips.pop()
            height, width = skip.shape[-2:]
            enlarged = upsampling(features)[..., :height, :width]
            features = stage(torch.cat([skip, enlarged], dim=1))
        return self.head(features)
