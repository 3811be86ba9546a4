import dataclasses
import json
import math
from pathlib import Path

import pytest

from config import ConfigError, PredictConfig, TrainConfig, load_config

ROOT = Path(__file__).parent.parent
REQUIRED = [
    "image_size",
    "discriminator_image_size",
    "train_data_dir",
    "valid_data_dir",
    "batch_size",
    "init_lr",
    "final_lr",
    "weight_decay",
    "discriminator_weight_decay",
    "discriminator_init_lr",
    "discriminator_final_lr",
    "epochs",
    "begin_use_adv_loss_epoch",
    "CUDA_VISIBLE_DEVICES",
    "num_workers",
    "model_save_dir",
    "laplacian_level_count",
    "layer_count_of_every_unet",
    "first_layer_out_channels_of_every_unet",
    "color_jitter_brightness",
    "color_jitter_saturation",
    "color_jitter_contrast",
]


SHIPPED = json.loads((ROOT / "conf.json").read_text())
TRAIN = {key: SHIPPED[key] for key in REQUIRED}
PREDICT = json.loads((ROOT / "predict_conf.json").read_text())


def faults_of(config_class, values):
    """The lines of the error that a config made of these values raises."""
    with pytest.raises(ConfigError) as caught:
        config_class(**values)
    return caught.value.lines


def file_faults(path, content, config_class=TrainConfig):
    """The lines of the error that a file raises, each without the file's name before it."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, config_class)
    assert str(caught.value) == "\n".join(caught.value.lines)
    assert all(line.startswith(f"{path}: ") for line in caught.value.lines)
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


def test_shipped_files_load():
    assert load_config(ROOT / "conf.json", TrainConfig).laplacian_level_count == 4
    assert load_config(ROOT / "predict_conf.json", PredictConfig).use_orig_size is False


def test_a_file_with_only_the_required_keys_loads(tmp_path):
    (tmp_path / "conf.json").write_text(json.dumps(TRAIN))
    assert load_config(tmp_path / "conf.json", TrainConfig).seed == 0
    required = [f.name for f in dataclasses.fields(TrainConfig) if f.default is dataclasses.MISSING]
    assert required == REQUIRED


def test_the_architecture_may_be_left_to_the_weights():
    values = {**PREDICT, "layer_count_of_every_unet": None}
    del values["laplacian_level_count"]
    config = PredictConfig(**values)
    assert config.laplacian_level_count is None
    assert config.layer_count_of_every_unet is None
    assert len(config.first_layer_out_channels_of_every_unet) == 4


def test_a_byte_order_mark_does_not_hurt(tmp_path):
    (tmp_path / "conf.json").write_text(json.dumps(TRAIN), encoding="utf-8-sig")
    assert load_config(tmp_path / "conf.json", TrainConfig).epochs == TRAIN["epochs"]


@pytest.mark.parametrize(
    ("config_class", "values"), [(TrainConfig, TRAIN), (PredictConfig, PREDICT)]
)
def test_to_dict_gives_json_that_loads_to_the_same_config(tmp_path, config_class, values):
    config = config_class(**values)
    (tmp_path / "again.json").write_text(json.dumps(config.to_dict()))
    assert load_config(tmp_path / "again.json", config_class) == config
    assert config.to_dict()["image_size"] == values["image_size"]


def test_short_forms_are_widened():
    config = TrainConfig(**{**TRAIN, "discriminator_image_size": 128}, exposure_shift_ev=2.5)
    assert config.discriminator_image_size == (128, 128)
    assert config.exposure_shift_ev == (-2.5, 2.5)
    assert TrainConfig(**TRAIN, exposure_shift_ev=[-3, 1]).exposure_shift_ev == (-3, 1)


def test_a_config_is_frozen_and_a_changed_copy_is_checked():
    config = TrainConfig(**TRAIN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3
    assert dataclasses.replace(config, epochs=3).epochs == 3
    with pytest.raises(ConfigError, match="epochs is 0"):
        dataclasses.replace(config, epochs=0)


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    values = {**TRAIN, "batchsize": 3, "epochs": 0, "final_lr": 1, "num_workers": "2"}
    del values["train_data_dir"]
    faults = file_faults(tmp_path / "conf.json", values)
    assert [fault.split()[0] for fault in faults] == [
        *("batchsize", "train_data_dir", "epochs", "num_workers", "final_lr")
    ]


def test_a_fault_names_key_value_what_is_allowed_and_the_fix(tmp_path):
    assert file_faults(tmp_path / "conf.json", {**TRAIN, "batch_size": 0}) == [
        'batch_size is 0; allowed: a whole number, 1 or more; write for example "batch_size": 16'
    ]


def test_a_missing_key_is_named_with_an_example(tmp_path):
    values = {key: value for key, value in TRAIN.items() if key != "image_size"}
    assert file_faults(tmp_path / "conf.json", values) == [
        "image_size is missing: [height, width], each a whole number, 1 to 65536; "
        'write for example "image_size": [512, 512]'
    ]


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("batchsize", "did you mean batch_size?"),
        ("cuda_visible_devices", "did you mean CUDA_VISIBLE_DEVICES?"),
        ("Seed", "did you mean seed?"),
        ("zzz", "remove it"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path, key, fix):
    faults = file_faults(tmp_path / "conf.json", {**TRAIN, key: 1})
    assert faults == [f"{key} is not a known key; {fix}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", True),
        ("batch_size", 2.0),
        ("batch_size", 10**400),
        ("image_size", 512),
        ("image_size", [512]),
        ("image_size", [512, 0]),
        ("discriminator_image_size", 64),
        ("train_data_dir", ""),
        ("train_data_dir", "a\0b"),
        ("train_data_dir", None),
        ("init_lr", 0),
        ("init_lr", "0.1"),
        ("init_lr", math.nan),
        ("init_lr", math.inf),
        ("weight_decay", -1),
        ("weight_decay", False),
        ("begin_use_adv_loss_epoch", 0),
        ("CUDA_VISIBLE_DEVICES", 0),
        ("CUDA_VISIBLE_DEVICES", "0, 1"),
        ("CUDA_VISIBLE_DEVICES", "0,"),
        ("CUDA_VISIBLE_DEVICES", "1,1"),
        ("CUDA_VISIBLE_DEVICES", "-1"),
        ("num_workers", -1),
        ("laplacian_level_count", 9),
        ("layer_count_of_every_unet", [4, 3, 3, "3"]),
        ("layer_count_of_every_unet", 3),
        ("color_jitter_brightness", -0.1),
        ("color_jitter_brightness", [2, 1]),
        ("color_jitter_contrast", [0.5, 1, 1.5]),
        ("seed", -1),
        ("pretrained_model", None),
        ("exposure_shift_ev", -1),
        ("exposure_shift_ev", [1, -1]),
        ("exposure_shift_share", 1.1),
        ("ema_decay", 1),
        ("is_group_norm_of_every_unet", [1, 0, 0, 0]),
        ("padding_mode_of_every_unet", ["reflect", "zeros", "zeros", "zeros"]),
        ("padding_mode_of_every_unet", "zeros"),
        ("mixed_precision", "on"),
        ("mixed_precision", ["auto"]),
        ("checkpoint_minutes", 0),
    ],
)
def test_a_value_of_wrong_type_or_out_of_range_is_refused(key, value):
    faults = faults_of(TrainConfig, {**TRAIN, key: value})
    assert len(faults) == 1
    assert faults[0].startswith(f"{key} is ")
    assert "; allowed: " in faults[0]
    assert f'; write for example "{key}": ' in faults[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lr": 1, "final_lr": 1},
        {"weight_decay": 0.1},
        {"begin_use_adv_loss_epoch": 10**6},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "0,11", "batch_size": 6},
        {"color_jitter_brightness": [0, 3], "color_jitter_contrast": 0},
        {"begin_use_level_epoch": [1, 1, 5, 9], "epochs": 9},
        {"begin_use_level_epoch": [1, 4, None, None], "epochs": 4},
        {"image_size": [64, 64]},
        {"is_group_norm_of_every_unet": [True, True, False, False]},
        {"padding_mode_of_every_unet": ["replicate", "zeros", "zeros", "zeros"]},
        {"exposure_shift_ev": 3, "exposure_shift_share": 1},
        {"ema_decay": 0.999, "untouched_share": 1, "retone_strength": 0.5},
        {"mixed_precision": "off", "checkpoint_minutes": 0.5, "pretrained_model": "a.pth"},
    ],
)
def test_allowed_values_are_kept_as_they_are(changes):
    values = TrainConfig(**{**TRAIN, **changes}).to_dict()
    for key, value in changes.items():
        assert values[key] == ([-3, 3] if key == "exposure_shift_ev" else value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_count_of_every_unet": [4, 3]}, "one item per level"),
        ({"first_layer_out_channels_of_every_unet": [24]}, "one item per level"),
        ({"begin_use_level_epoch": [1, 2]}, "one item per level"),
        ({"is_group_norm_of_every_unet": [True]}, "one item per level"),
        ({"padding_mode_of_every_unet": ["zeros"]}, "one item per level"),
        ({"begin_use_level_epoch": [2, 2, 3, 3]}, "starts with 1 and never falls"),
        ({"begin_use_level_epoch": [1, 5, 3, 5]}, "starts with 1 and never falls"),
        ({"begin_use_level_epoch": [1, None, 3, 5]}, "starts with 1 and never falls"),
        ({"begin_use_level_epoch": [None] * 4}, "starts with 1 and never falls"),
        ({"begin_use_level_epoch": [1, 2, 3, 5], "epochs": 4}, "every level begins by the last"),
        ({"begin_use_level_epoch": [1, 5, None, None], "epochs": 4}, "every level begins by the"),
        ({"image_size": [512, 63]}, "8 px or more at the coarsest level"),
        ({"final_lr": 0.5}, "final_lr is at most init_lr"),
        ({"discriminator_final_lr": 0.5}, "discriminator_final_lr is at most"),
        ({"batch_size": 3, "CUDA_VISIBLE_DEVICES": "0,1"}, "multiple of the number of GPUs"),
        ({"model_save_dir": "data/train/runs"}, "outside the folders of photos"),
        ({"model_save_dir": "a", "valid_data_dir": "b/../a"}, "outside the folders of photos"),
        ({"exposure_shift_share": 0.5}, "needs a range in exposure_shift_ev"),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes, message):
    faults = faults_of(TrainConfig, {**TRAIN, **changes})
    assert len(faults) == 1
    assert message in faults[0]
    for key, value in changes.items():
        assert f"{key} is {json.dumps(value)}" in faults[0]


def test_a_run_inside_a_folder_of_photos_is_found_through_links(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "loop").symlink_to("loop")
    values = {**TRAIN, "train_data_dir": str(tmp_path / "photos")}
    faults = faults_of(TrainConfig, {**values, "model_save_dir": str(tmp_path / "link" / "run")})
    assert "outside the folders of photos" in faults[0]
    for outside in ("loop", "photos2", "run"):
        assert TrainConfig(**{**values, "model_save_dir": str(tmp_path / outside)})


def test_lists_of_a_wrong_length_are_named_one_by_one():
    faults = faults_of(TrainConfig, {**TRAIN, "laplacian_level_count": 2})
    assert [fault.split()[0] for fault in faults] == [
        "layer_count_of_every_unet",
        "first_layer_out_channels_of_every_unet",
    ]
    faults = faults_of(PredictConfig, {**PREDICT, "layer_count_of_every_unet": [3]})
    assert "layer_count_of_every_unet is [3], laplacian_level_count is 4" in faults[0]


def test_long_values_are_cut(tmp_path):
    (fault,) = file_faults(tmp_path / "conf.json", {**TRAIN, "batch_size": [1] * 1000})
    assert len(fault) < 160


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    content = json.dumps(TRAIN)[:-1] + ', "epochs": 3}'
    faults = file_faults(tmp_path / "conf.json", content)
    assert faults == ["epochs stands there more than once; keep one of them"]


def test_invalid_json_is_reported_with_line_and_column(tmp_path):
    faults = file_faults(tmp_path / "conf.json", '{\n  "epochs": 3,\n  oops\n}')
    assert faults == [
        "line 3, column 3: not valid JSON "
        "(Expecting property name enclosed in double quotes); mend it"
    ]


def test_nan_and_infinity_in_a_file_are_refused(tmp_path):
    content = json.dumps({**TRAIN, "init_lr": math.nan, "weight_decay": math.inf})
    faults = file_faults(tmp_path / "conf.json", content)
    assert [fault.split(";")[0] for fault in faults] == [
        "init_lr is NaN",
        "weight_decay is Infinity",
    ]


def test_files_that_are_no_config_at_all_are_refused(tmp_path):
    path = tmp_path / "conf.json"
    assert file_faults(path, "[1, 2]") == ["holds [1, 2]; write an object: {...}"]
    assert "can't be read as JSON" in file_faults(path, "[" * 100_000)[0]
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="can't be read as JSON"):
        load_config(path, TrainConfig)


def test_a_missing_file_or_a_folder_is_reported(tmp_path):
    with pytest.raises(ConfigError, match=r"conf\.json: no such file; name one with --conf"):
        load_config(tmp_path / "conf.json", TrainConfig)
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path, TrainConfig)
