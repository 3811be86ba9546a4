"""The exposure correction network and its discriminator.

The network is that of Afifi, Derpanis, Ommer and Brown, "Learning Multi-Scale Photo Exposure
Correction" (CVPR 2021). Level 1 is the finest; every list of levels runs coarsest first.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyramid import (
    binomial_kernel,
    collapse_pyramid,
    crop_after_up,
    gaussian_pyramid,
    laplacian_pyramid,
    pad_for_pyramid,
    pad_for_up,
    pyramid_up,
    without_autocast,
)
from sub_unet import SubUNet

__all__ = [
    "Discriminator",
    "ExposureCorrectionNet",
    "SubUNet",
    "collapse_pyramid",
    "gaussian_pyramid",
    "laplacian_pyramid",
]

# Mirror images, by the sides that are flipped, and the gammas that they are toned with.
FLIPS = ([], [3], [2], [2, 3])
GAMMAS = (2**0.5, 2**-0.5, 2**-0.5, 2**0.5)


class LearnedUpsampling(nn.ConvTranspose2d):
    """Doubles both sides with a trained 5x5 kernel that starts as `pyramid_up`'s."""

    def __init__(self, channels: int = 3):
        super().__init__(channels, channels, kernel_size=5, stride=2)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()
            for channel in range(channels):
                self.weight[channel, channel] = 4 * binomial_kernel(self.weight)[0, 0]

    def forward(self, image: Tensor) -> Tensor:
        with without_autocast(image):
            return crop_after_up(super().forward(pad_for_up(image)))


def average_over_flips(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Mean of what a function makes of a photo and its three mirror images, mirrored back.

    The geometric self-ensemble of Lim et al., "Enhanced Deep Residual Networks for Single Image
    Super-Resolution" (2017): errors that depend on left and right, up and down, even out.

    Args:
        function: maps (4 N, 3, H, W), the photos flipped as FLIPS has it, to (4 N, C, H, W).
        image: (N, 3, H, W).

    Returns:
        (N, C, H, W).
    """
    outputs = function(torch.cat([image.flip(sides) for sides in FLIPS])).chunk(len(FLIPS))
    restored = [output.flip(sides) for output, sides in zip(outputs, FLIPS, strict=True)]
    return torch.stack(restored).mean(0)


def hold_border(update: Tensor) -> Tensor:
    """Give the outermost pixels the values of those beside them, further in.

    There, the zeros around the photo count most, and would leave a greyer border.

    Args:
        update: (N, 6, H, W), the gains and offsets of a sub-network.

    Returns:
        (N, 6, H, W); what is smaller than 3 px comes back as it is.
    """
    if min(update.shape[-2:]) < 3:
        return update
    return F.pad(update[..., 1:-1, 1:-1], (1, 1, 1, 1), mode="replicate")


class ExposureCorrectionNet(nn.Module):
    """One SubUNet per level of a Laplacian pyramid, coarsest first; untrained, the identity.

        z_l = up(y_{l+1}) + scale_l * laplacian_l        (z_n = scale_n * laplacian_n)
        y_l = z_l + unet_l(z_l)                          corrected photo at level l

    The paper adds only up(y_{l+1}) to the sub-network's output; adding z_l keeps the path of
    the detail free. With `has_gain` every sub-network predicts a gain and an offset per pixel
    and colour, and the gain found at coarse levels also amplifies the detail of finer ones, as
    a brighter photo needs stronger detail (a departure from the paper):

        z_l = up(y_{l+1}) + up(G_{l+1}) * scale_l * laplacian_l
        y_l = (1 + gain_l) * z_l + offset_l,             G_l = (1 + gain_l) * up(G_{l+1})

    The outermost gains and offsets of the coarsest level are those beside them, where its
    convolutions see zeros around the photo.

    Args:
        layer_counts: encoder stages of every sub-network, coarsest first.
        first_channels: channels of the first stage of every sub-network, coarsest first.
        has_group_norm: which sub-networks normalise, coarsest first; None: none.
        has_gain: predict gain and offset instead of the offset alone.
        padding_modes: of every sub-network, coarsest first; None: all "zeros".

    Raises:
        ValueError: the lists differ in length or are empty.
    """

    def __init__(
        self,
        layer_counts: Sequence[int],
        first_channels: Sequence[int],
        has_group_norm: Sequence[bool] | None = None,
        has_gain: bool = False,
        padding_modes: Sequence[str] | None = None,
    ):
        super().__init__()
        if has_group_norm is None:
            has_group_norm = [False] * len(layer_counts)
        if padding_modes is None:
            padding_modes = ["zeros"] * len(layer_counts)
        lists = (layer_counts, first_channels, has_group_norm, padding_modes)
        lengths = set(map(len, lists))
        if lengths != {max(len(layer_counts), 1)}:
            raise ValueError(
                f"layer_counts has {len(layer_counts)} levels, first_channels "
                f"{len(first_channels)}, has_group_norm {len(has_group_norm)}, "
                f"padding_modes {len(padding_modes)}: they must be equal and 1 or more"
            )
        # The arguments again, in plain types, to be stored beside the weights.
        self.architecture = {
            "layer_counts": list(layer_counts),
            "first_channels": list(first_channels),
            "has_group_norm": list(has_group_norm),
            "has_gain": has_gain,
            "padding_modes": list(padding_modes),
        }
        self.has_gain = has_gain
        self.sees_frame = padding_modes[0] == "zeros"
        self.sub_networks = nn.ModuleList(
            SubUNet(*settings, out_channels=6 if has_gain else 3)
            for settings in zip(*lists, strict=True)
        )
        self.upsamplings = nn.ModuleList(LearnedUpsampling() for _ in layer_counts[1:])

    @property
    def level_count(self) -> int:
        return len(self.sub_networks)

    def forward(
        self,
        abnormal: Tensor,
        level_scales: Sequence[float] | None = None,
        active_count: int | None = None,
        self_ensemble: bool = False,
    ) -> list[Tensor]:
        """Correct the exposure of a batch of photos.

        Args:
            abnormal: (N, 3, H, W), sRGB in [0, 1], any H and W from 1 up.
            level_scales: one factor per level, coarsest first, on the photo's Laplacian levels
                (the authors' S); None: all 1.
            active_count: run only so many of the coarsest sub-networks, for training from
                coarse to fine. The photo is then one level finer than the finest of them
                (or level 1): that last level shows how the gain carries detail. None: all.
            self_ensemble: average the coarsest sub-network, which finds the exposure and costs
                little, over mirror images of the photo.

        Returns:
            Corrected photos y_n ... y_1, coarsest first, not clipped. The last is (N, 3, H, W);
            those before are of the padded photo, each half as large as the next.

        Raises:
            ValueError: level_scales or active_count do not fit the number of levels.
        """
        if active_count is None:
            active_count = self.level_count
        if not 1 <= active_count <= self.level_count:
            raise ValueError(f"active_count is {active_count}; allowed: 1 to {self.level_count}")
        pyramid_count = min(active_count + 1, self.level_count)
        if level_scales is None:
            level_scales = [1.0] * pyramid_count
        if len(level_scales) != pyramid_count:
            raise ValueError(f"{len(level_scales)} level_scales for {pyramid_count} levels")

        height, width = abnormal.shape[-2:]
        padded = pad_for_pyramid(abnormal, pyramid_count)
        corrected, gain = None, None
        outputs = []
        for index, band in enumerate(laplacian_pyramid(padded, pyramid_count)):
            band = level_scales[index] * band
            if corrected is None:
                corrected = band
            else:
                if gain is not None:
                    gain = pyramid_up(gain)
                    band = gain * band
                corrected = self.upsamplings[index - 1](corrected) + band
            sub_network = self.sub_networks[index]
            # One that gives zeros may as well be left out, unless it is to learn from them.
            is_needed = torch.is_grad_enabled() or not sub_network.is_untrained
            if index < active_count and is_needed:
                is_averaged = self_ensemble and index == 0
                corrected, level_gain = self.correct_level(index, corrected, is_averaged)
                if level_gain is not None:
                    gain = level_gain if gain is None else level_gain * gain
            outputs.append(corrected)
        outputs[-1] = outputs[-1][..., :height, :width]
        return outputs

    def correct_level(
        self, index: int, image: Tensor, is_averaged: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Run one sub-network on z_l; return y_l and, with `has_gain`, 1 + gain_l, else None."""
        sub_network = self.sub_networks[index]
        update = average_over_flips(sub_network, image) if is_averaged else sub_network(image)
        update = update.float()
        if not self.has_gain:
            return image + update, None
        if index == 0 and self.sees_frame:
            update = hold_border(update)
        gain = 1 + update[:, :3]
        return gain * image + update[:, 3:], gain

    def correct_toned(self, image: Tensor) -> Tensor:
        """Mean correction of a coarsest level's four mirror images, toned by gammas.

        Two are darkened, two brightened, and none is turned back: the network is to bring all to
        one exposure, and its errors even out.

        Args:
            image: (N, 3, H, W), the coarsest level of the photos, sRGB in [0, 1].

        Returns:
            (N, 3, H, W), not clipped.
        """
        gammas = torch.tensor(GAMMAS, device=image.device).repeat_interleave(len(image))

        def correct_versions(images: Tensor) -> Tensor:
            toned = images.clamp(0, 1) ** gammas[:, None, None, None]
            return self.correct_level(0, toned)[0]

        return average_over_flips(correct_versions, image)


class Discriminator(nn.Module):
    """Tells normal photos from corrected ones, as in the paper: one logit per photo.

    Args:
        image_size: (height, width) in px to which photos are resized, each 128 or more.
    """

    def __init__(self, image_size: tuple[int, int] = (256, 256)):
        super().__init__()
        if min(image_size) < 128:
            raise ValueError(f"image_size is {image_size}; seven halvings need 128 px or more")
        self.image_size = tuple(image_size)
        layers: list[nn.Module] = []
        in_channels = 3
        for index, channels in enumerate((8, 16, 32, 64, 128, 128, 256)):
            layers.append(nn.Conv2d(in_channels, channels, kernel_size=4, stride=2, padding=1))
            if index == 1:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.LeakyReLU(0.01))
            in_channels = channels
        height, width = (side // 128 for side in image_size)
        layers.append(nn.Conv2d(in_channels, 1, kernel_size=(height, width)))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W), sRGB in [0, 1], to (N,) logits; positive: looks normal."""
        resized = F.interpolate(
            image, self.image_size, mode="bilinear", align_corners=False, antialias=True
        )
        return self.layers(resized).flatten()
