"""Small networks for tests."""

import torch
from torch import nn

from model import ExposureCorrectionNet

DEFAULT = {"layer_counts": [4, 3, 3, 3], "first_channels": [24, 24, 24, 16]}
TINY = {"layer_counts": [1, 1], "first_channels": [8, 8]}


def make_trained(**settings) -> ExposureCorrectionNet:
    """A network whose heads are no longer zero, so that every weight matters."""
    torch.manual_seed(0)
    network = ExposureCorrectionNet(**(TINY | settings))
    for unet in network.sub_networks:
        nn.init.normal_(unet.head.weight, std=0.2)
        nn.init.normal_(unet.head.bias, std=0.1)
    return network.eval()


def make_untrained(*arguments, **settings) -> ExposureCorrectionNet:
    """The identity, with heads just above zero, so that no sub-network is left out."""
    network = ExposureCorrectionNet(*arguments, **settings)
    for unet in network.sub_networks:
        nn.init.constant_(unet.head.bias, 1e-9)
    return network


def note_runs(network: ExposureCorrectionNet) -> list[int]:
    """A list to which every sub-network adds its index when it runs."""
    runs = []
    for index, unet in enumerate(network.sub_networks):
        unet.register_forward_hook(lambda *_, index=index: runs.append(index))
    return runs
