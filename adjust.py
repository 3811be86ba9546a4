"""What may be done to the network's result before it is carried to full size.

All of it works on the pictures that the network sees and makes; a bilateral grid and guided
upsampling carry the outcome to the photo.
"""

import cv2
import numpy as np

# Shares of the values that `stretch_contrast` lets go to black, and to white.
CLIPPED_SHARE = 0.005


def blend(start: np.ndarray, end: np.ndarray, strength: float) -> np.ndarray:
    """Go a share of the way from one picture to another, or beyond.

    Args:
        start, end: (h, w, 3) float32 in [0, 1], such as the photo and its correction.
        strength: 0: the start; 1: the end; up to 2: overdone.

    Returns:
        (h, w, 3) float32 in [0, 1].
    """
    return np.clip(start + np.float32(strength) * (end - start), 0, 1)


def restrained_strength(abnormal: np.ndarray, corrected: np.ndarray, restraint: float) -> float:
    """Return the strength of `blend` by which a correction fades out that is hardly needed.

    So a photo that is right stays as it is. (The authors' program has nothing of the kind.) What
    tells is the median, which a bright sky or a lamp does not move that fills less than half.

    Args:
        abnormal, corrected: (h, w, 3) float32 in [0, 1].
        restraint: change of the median luma, white = 1, from which on the correction counts in
            full; below, its share falls smoothly (3 x^2 - 2 x^3) to none. 0: always in full.

    Returns:
        The strength, in [0, 1].
    """
    before, after = (
        np.median(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) for picture in (abnormal, corrected)
    )
    change = abs(float(after) - float(before))
    if change >= restraint:
        return 1.0
    share = change / restraint
    return share * share * (3 - 2 * share)


def fuse(abnormal: np.ndarray, corrected: np.ndarray) -> np.ndarray:
    """Take of the photo and its correction what is better exposed (Mertens et al. 2007).

    Args:
        abnormal, corrected: (h, w, 3) float32 in [0, 1].

    Returns:
        (h, w, 3) float32 in [0, 1].
    """
    # OpenCV leaves exposure out unless told, and saturation would rule out grey photos.
    merge = cv2.createMergeMertens(contrast_weight=1, saturation_weight=0, exposure_weight=1)
    # It divides floats, too, by 255. In flat areas, the last bits would count as contrast.
    fused = merge.process([np.rint(image * 4080) / 16 for image in (abnormal, corrected)])
    return np.clip(fused, 0, 1).astype(np.float32)


def stretch_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch the values so that the darkest 0.5 % become black, and the brightest white.

    One line for all three channels, which keeps hues.

    Args:
        image: (h, w, 3) float32 in [0, 1].

    Returns:
        (h, w, 3) float32 in [0, 1]; a flat image comes back as it is.
    """
    black, white = np.quantile(image, (CLIPPED_SHARE, 1 - CLIPPED_SHARE)).astype(np.float32)
    if white - black < 1 / 255:
        return image
    return np.clip((image - black) / (white - black), 0, 1)
