from config import TrainConfig
from loader import count_active_levels, stage_image_size


def test_stages_are_counted_and_sized_from_the_coarsest(train_settings):
    levels = {
        "laplacian_level_count": 4,
        "layer_count_of_every_unet": [1] * 4,
        "first_layer_out_channels_of_every_unet": [8] * 4,
        "image_size": [512, 384],
    }
    stages = {"begin_use_level_epoch": [1, 1, 10, 20], "epochs": 20}
    config = TrainConfig(**(train_settings | levels | stages))
    counts = {epoch: count_active_levels(config, epoch) for epoch in (1, 9, 10, 19, 20, 99)}
    assert counts == {1: 2, 9: 2, 10: 3, 19: 3, 20: 4, 99: 4}
    sizes = [stage_image_size(config, count) for count in (1, 2, 3, 4)]
    assert sizes == [(128, 96), (256, 192), (512, 384), (512, 384)]
    assert count_active_levels(TrainConfig(**(train_settings | levels)), 1) == 4
