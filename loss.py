"""The paper's losses, as pure functions of tensors.

The paper sums absolute differences over the 3hw values of a photo, on a 0..255 scale. Here they
are means over those values, on a 0..1 scale: the same objective divided by 255 * 3hw, so that
learning rates hold for any photo size.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean absolute error of the finest level, y_1 against the normal photo t_1.

    Args:
        outputs: corrected photos, coarsest first, each (N, 3, H_l, W_l), about [0, 1].
        targets: the Gaussian pyramid of the normal photos, of the same shapes.

    Returns:
        A scalar, on the 0..1 scale of the photos.
    """
    return F.l1_loss(outputs[-1], targets[-1])


def pyramid_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The paper's loss on the coarser levels l = 2..n, sum_l 2^(2 - l) * mean|y_l - t_l|.

    The paper compares y_l after doubling its sides, and weighs the sum by 2^(l-2). We compare
    before that, on a quarter of the values, so each counts four times. Level l has
    3hw / 4^(l-1) values; divided by 3hw its weight on the *mean* is

        4 * 2^(l-2) / 4^(l-1) = 2^(2-l):    1 for level 2, 1/2 for level 3, 1/4 for level 4.

    Level 1 is the last that is given: while coarse levels are trained alone, the finest of them
    and the one above it are levels 2 and 1 here, as of a smaller photo.

    Args:
        outputs: corrected photos, coarsest first, each (N, 3, H_l, W_l), about [0, 1].
        targets: the Gaussian pyramid of the normal photos, of the same shapes.

    Returns:
        A scalar; 0 when there is one level only.
    """
    level_count = len(outputs)
    loss = outputs[-1].new_zeros(())
    for index, (output, target) in enumerate(zip(outputs[:-1], targets[:-1], strict=True)):
        level = level_count - index
        loss = loss + 2.0 ** (2 - level) * F.l1_loss(output, target)
    return loss


def agreement_loss(outputs: Sequence[Tensor], version_count: int) -> Tensor:
    """Mean absolute difference, at the coarsest level, of a photo's first correction to its others.

    Corrected versions of one photo should look alike however they were spoilt; what is left of
    their difference is the network reading traces of the damage (not in the paper).

    Args:
        outputs: corrected photos, coarsest first, each (N * version_count, 3, H_l, W_l), the
            versions of a photo one after the other.
        version_count: 2 or more.

    Returns:
        A scalar, on the 0..1 scale of the photos.
    """
    first, *others = outputs[0].unflatten(0, (-1, version_count)).unbind(1)
    return sum(F.l1_loss(other, first) for other in others) / len(others)


def adversarial_loss(logits: Tensor, level_count: int) -> Tensor:
    """The generator's part: -n * log S(D(y_1)) / 255, S the logistic function.

    The paper's weight is 3hwn beside sums over 3hw values of 0..255; see the module's text.

    Args:
        logits: (N,), what the discriminator says of the corrected photos.
        level_count: n.

    Returns:
        A scalar.
    """
    return level_count / 255 * F.softplus(-logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's own loss: -log S(D(t_1)) - log(1 - S(D(y_1))).

    Args:
        real_logits: (N,), of normal photos.
        fake_logits: (N,), of corrected photos, computed on `corrected.detach()`.

    Returns:
        A scalar.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
