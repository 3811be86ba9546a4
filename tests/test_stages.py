from config import TrainConfig
from stages import (
    count_active_levels,
    count_frozen_levels,
    count_versions,
    last_learning_epoch,
    stage_image_size,
)

THREE_LEVELS = {
    "laplacian_level_count": 3,
    "layer_count_of_every_unet": [1] * 3,
    "first_layer_out_channels_of_every_unet": [8] * 3,
}


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
    stages = {"begin_use_level_epoch": [1, 1, 2], "epochs": 2}
    staged = TrainConfig(**(train_settings | THREE_LEVELS | stages | {"agreement_weight": 0.5}))
    assert [count_versions(staged, active_count) for active_count in (2, 3)] == [2, 1]
    at_once = TrainConfig(**(train_settings | {"agreement_weight": 0.5}))
    assert count_versions(at_once, at_once.laplacian_level_count) == 2
    apart = TrainConfig(**(train_settings | {"agreement_weight": 0}))
    assert count_versions(apart, apart.laplacian_level_count) == 1


def test_levels_of_the_first_stage_freeze_once_finer_ones_join(train_settings):
    def make_config(**settings) -> TrainConfig:
        return TrainConfig(**(train_settings | THREE_LEVELS | {"epochs": 9} | settings))

    staged = make_config(is_first_stage_frozen=True, begin_use_level_epoch=[1, 4, 6])
    assert [count_frozen_levels(staged, active_count) for active_count in (1, 2, 3)] == [0, 1, 1]
    assert [last_learning_epoch(staged, begin) for begin in (1, 4, 6)] == [3, 9, 9]
    pair = make_config(is_first_stage_frozen=True, begin_use_level_epoch=[1, 1, 6])
    assert [count_frozen_levels(pair, active_count) for active_count in (2, 3)] == [0, 2]
    assert last_learning_epoch(pair, 1) == 5
    for learning in (
        make_config(begin_use_level_epoch=[1, 4, 6]),
        make_config(is_first_stage_frozen=True),
        make_config(is_first_stage_frozen=True, begin_use_level_epoch=[1, 1, None]),
    ):
        counts = [count_active_levels(learning, epoch) for epoch in (1, 9)]
        assert [count_frozen_levels(learning, count) for count in counts] == [0, 0]
        assert last_learning_epoch(learning, 1) == 9
