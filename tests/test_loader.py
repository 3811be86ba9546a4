from config import TrainConfig
from loader import count_active_levels, count_versions, stage_image_size


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
    never = {"begin_use_level_epoch": [1, 2, None, None], "epochs": 2}
    config = TrainConfig(**(train_settings | levels | never))
    assert [count_active_levels(config, epoch) for epoch in (1, 2)] == [1, 2]


def test_photos_come_in_two_versions_until_finer_levels_join(train_settings):
    stages = {"laplacian_level_count": 3, "begin_use_level_epoch": [1, 1, 2], "epochs": 2}
    levels = {
        "layer_count_of_every_unet": [1] * 3,
        "first_layer_out_channels_of_every_unet": [8] * 3,
    }
    staged = TrainConfig(**(train_settings | levels | stages | {"agreement_weight": 0.5}))
    assert [count_versions(staged, active_count) for active_count in (2, 3)] == [2, 1]
    at_once = TrainConfig(**(train_settings | {"agreement_weight": 0.5}))
    assert count_versions(at_once, at_once.laplacian_level_count) == 2
    apart = TrainConfig(**(train_settings | {"agreement_weight": 0}))
    assert count_versions(apart, apart.laplacian_level_count) == 1
