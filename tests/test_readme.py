import dataclasses
import json
import re

import pytest
import torch
from conftest import ROOT

from checkpoint import load_weights
from config import PredictConfig, TrainConfig
from photo_formats import OUTPUT_FORMATS
from run_state import make_networks

README = (ROOT / "README.md").read_text(encoding="utf-8")
ABSENT = "\N{EN DASH}"  # in the place of conf.json's value


def tables() -> list[dict[str, str]]:
    """Every table of keys: what its second column says, by key."""
    found: list[dict[str, str]] = []
    for line in README.splitlines():
        if re.match(r"\|\s*key\s*\|", line):
            found.append({})
        row = re.match(r"\|\s*`(\w+)`\s*\|([^|]*)\|.*\S.*\|$", line)
        if row and found:
            key, values = row.groups()
            assert key not in found[-1], f"{key} stands there twice"
            found[-1][key] = values.strip()
    return found


def read(cell: str) -> object:
    """The JSON value that stands between backticks."""
    return json.loads(re.fullmatch(r"`([^`]+)`", cell).group(1))


def defaults_of(config_class) -> dict[str, object]:
    """Default of each optional key, as JSON has it."""
    return {
        field.name: json.loads(json.dumps(field.default))
        for field in dataclasses.fields(config_class)
        if field.default is not dataclasses.MISSING
    }


def shipped(name: str) -> dict[str, object]:
    return json.loads((ROOT / name).read_text())


def required_of(config_class) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)} - set(
        defaults_of(config_class)
    )


def all_cells() -> list:
    """(what the table says, what is so), each named by table and key."""
    predict, required, optional = tables()
    cells = []
    values = defaults_of(PredictConfig) | shipped("predict_conf.json")
    cells += [("predict_conf.json", key, cell, values.get(key)) for key, cell in predict.items()]
    values = shipped("conf.json")
    cells += [("conf.json", key, cell, values.get(key)) for key, cell in required.items()]
    defaults = defaults_of(TrainConfig)
    for key, cell in optional.items():
        there, left_out = (part.strip() for part in cell.split(" / "))
        cells += [
            ("conf.json", key, there, values.get(key, ABSENT)),
            ("left_out", key, left_out, defaults.get(key)),
        ]
    return [pytest.param(cell, value, id=f"{name}-{key}") for name, key, cell, value in cells]


def test_there_is_a_table_for_prediction_and_two_for_training():
    assert len(tables()) == 3


@pytest.mark.parametrize(
    ("index", "keys"),
    [
        (0, required_of(PredictConfig) | set(defaults_of(PredictConfig))),
        (1, required_of(TrainConfig)),
        (2, set(defaults_of(TrainConfig))),
    ],
)
def test_every_key_is_explained_and_none_that_does_not_exist(index, keys):
    assert set(tables()[index]) == keys


@pytest.mark.parametrize(("cell", "value"), all_cells())
def test_defaults_are_those_of_the_files_and_of_the_code(cell, value):
    assert (ABSENT if cell == ABSENT else read(cell)) == value


@pytest.mark.parametrize(
    ("config_class", "name"), [(TrainConfig, "conf.json"), (PredictConfig, "predict_conf.json")]
)
def test_what_faults_propose_to_write_is_what_the_shipped_file_says(config_class, name):
    examples = {key.name: key.metadata["example"] for key in dataclasses.fields(config_class)}
    values = shipped(name)
    assert all(examples[key] == values[key] for key in required_of(config_class))


def test_keys_that_the_shipped_file_leaves_out_are_told_to_be_optional():
    keys = list(tables()[0])
    optional = keys[keys.index("show_result") + 1 :]
    assert set(optional) == set(defaults_of(PredictConfig)) - set(shipped("predict_conf.json"))


def test_every_output_format_is_named():
    (row,) = re.findall(r"^\| `output_format` .*$", README, re.MULTILINE)
    assert re.findall(r'"(\w+)"', row) == list(OUTPUT_FORMATS)


def test_the_shipped_weights_can_be_trained_on_as_the_readme_says():
    (advice,) = re.findall(r"start from the shipped weights .*", README)
    changes = json.loads("{" + ", ".join(re.findall(r'`("\w+": [^`]+)`', advice)) + "}")
    assert changes["pretrained_model"] == "weights/exposure_correction.pth"
    changes["pretrained_model"] = str(ROOT / changes["pretrained_model"])
    config = TrainConfig(**json.loads((ROOT / "conf.json").read_text()) | changes)
    generator = make_networks(config, torch.device("cpu")).generator
    assert generator.architecture == load_weights(changes["pretrained_model"]).architecture
