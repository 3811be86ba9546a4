import math

import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch

from loss import (
    adversarial_loss,
    agreement_loss,
    discriminator_loss,
    pyramid_loss,
    reconstruction_loss,
)
from model import gaussian_pyramid

HEIGHT, WIDTH = 16, 24


def make_levels(*values: float) -> list[torch.Tensor]:
    """Constant images, coarsest first."""
    shifts = range(len(values) - 1, -1, -1)
    return [
        torch.full((1, 3, HEIGHT >> shift, WIDTH >> shift), value)
        for shift, value in zip(shifts, values, strict=True)
    ]


def papers_sums(outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> tuple[float, float]:
    """Equations of section 4.3 as printed: sums over pixels, on a 0..255 scale, y_l doubled."""
    n = len(outputs)
    reconstruction = (255 * (outputs[-1] - targets[-1])).abs().sum()
    pyramid = torch.zeros(())
    for index in range(n - 1):
        level = n - index
        upsampled, target = (
            F.interpolate(image, scale_factor=2, mode="nearest")
            for image in (outputs[index], targets[index])
        )
        pyramid = pyramid + 2 ** (level - 2) * (255 * (upsampled - target)).abs().sum()
    return reconstruction.item(), pyramid.item()


def test_reconstruction_loss_of_a_hand_case():
    output, target = torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2)
    output[0, 0, 0, 0], target[1, 2, 0, 1] = -0.6, 0.3  # 0.9 over 12 values
    assert reconstruction_loss([output], [target]).item() == pytest.approx(0.9 / 12)


def test_reconstruction_loss_sees_the_finest_level_only():
    outputs, targets = make_levels(0.9, 0.1, 0.25), make_levels(0.0, 0.7, 0.5)
    assert reconstruction_loss(outputs, targets).item() == pytest.approx(0.25)


def test_pyramid_loss_of_a_hand_case():
    # levels 4, 3, 2 differ by 0.4, 0.2, 0.1; level 1, by 0.9, belongs to the other loss
    outputs, targets = make_levels(0.4, 0.3, 0.5, 0.9), make_levels(0.0, 0.5, 0.4, 0.0)
    expected = 0.4 / 4 + 0.2 / 2 + 0.1
    assert pyramid_loss(outputs, targets).item() == pytest.approx(expected, rel=1e-5)


def test_pyramid_loss_is_zero_with_one_level():
    assert pyramid_loss(make_levels(0.3), make_levels(0.8)).item() == 0


@pytest.mark.parametrize("level_count", [1, 2, 3, 4])
def test_losses_are_the_papers_sums_divided_by_255_times_3hw(level_count):
    differences = [0.4, -0.2, 0.1, 0.05][:level_count]
    outputs, targets = make_levels(*differences), make_levels(*[0.0] * level_count)
    reconstruction, pyramid = papers_sums(outputs, targets)
    scale = 255 * 3 * HEIGHT * WIDTH
    assert scale * reconstruction_loss(outputs, targets).item() == pytest.approx(reconstruction)
    assert scale * pyramid_loss(outputs, targets).item() == pytest.approx(pyramid)


def test_losses_are_means_over_the_photos_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    normal, corrected = torch.rand(2, 2, 3, 16, 16, generator=generator)
    for loss in (reconstruction_loss, pyramid_loss):
        outputs, targets = gaussian_pyramid(corrected, 3), gaussian_pyramid(normal, 3)
        single = [
            loss([level[i : i + 1] for level in outputs], [level[i : i + 1] for level in targets])
            for i in range(2)
        ]
        torch.testing.assert_close(loss(outputs, targets), sum(single) / 2)


@pytest.mark.parametrize("loss", [reconstruction_loss, pyramid_loss])
def test_losses_do_not_depend_on_the_size_of_the_photo(loss):
    small, large = ([torch.full((1, 3, s, s), 0.5) for s in (n, 2 * n)] for n in (4, 40))
    values = [loss(x, [torch.zeros_like(level) for level in x]).item() for x in (small, large)]
    assert values == pytest.approx([0.5, 0.5])


def test_adversarial_loss_is_the_papers_term_divided_by_255_times_3hw():
    logits, n = torch.tensor([0.0, 1.5, -2.0]), 4
    values = 3 * HEIGHT * WIDTH
    papers = [-values * n * math.log(1 / (1 + math.exp(-x))) for x in logits.tolist()]
    expected = sum(papers) / len(papers) / (255 * values)
    assert adversarial_loss(logits, n).item() == pytest.approx(expected)


def test_adversarial_loss_weighs_about_0_0157_with_four_levels():
    assert adversarial_loss(torch.zeros(1), 4).item() == pytest.approx(0.0157 * math.log(2), 1e-2)


def test_discriminator_loss_of_a_hand_case():
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = -(math.log(0.5) + math.log(sigmoid(2))) / 2
    expected -= (math.log(0.5) + math.log(1 - sigmoid(-1))) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(expected)


def test_confident_logits_overflow_nowhere():
    huge = torch.tensor([1e4, -1e4])
    assert adversarial_loss(huge, 4).isfinite()
    assert discriminator_loss(huge, huge).isfinite()


def test_losses_pull_the_right_way():
    logits = torch.zeros(2, requires_grad=True)
    adversarial_loss(logits, 4).backward()
    assert (logits.grad < 0).all()  # the generator wants to look more normal
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()


def test_agreement_loss_of_two_versions_by_hand():
    coarsest = torch.zeros(4, 3, 2, 2)  # two photos, two versions each
    coarsest[1] = 0.5  # the first photo's versions differ by a half, the second's not at all
    loss = agreement_loss([coarsest, torch.rand(4, 3, 4, 4)], version_count=2)
    assert loss.item() == pytest.approx(0.25)


def test_agreement_loss_compares_every_further_version_with_the_first():
    coarsest = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert agreement_loss([coarsest], version_count=3).item() == pytest.approx(0.3)


def test_agreement_loss_moves_both_versions():
    coarsest = make_batch(2, 3, 2, 2).requires_grad_()
    agreement_loss([coarsest], version_count=2).backward()
    assert (coarsest.grad != 0).all()
