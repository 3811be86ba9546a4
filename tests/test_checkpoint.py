import pickle
from pathlib import Path

import pytest
import torch

from checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from model import ExposureCorrectionNet


def make_network() -> ExposureCorrectionNet:
    torch.manual_seed(0)
    network = ExposureCorrectionNet([2, 1], [4, 8], [True, False], has_gain=True)
    for unet in network.sub_networks:
        torch.nn.init.normal_(unet.head.weight)
    return network


class Malicious:
    """Creates a file when it is unpickled with everything allowed."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"a": {"b": torch.arange(3), "c": [1, 2.5, None, "text", True]}, "d": -float("inf")}
    save_checkpoint(tmp_path / "new" / "folder" / "last.pth", state)
    loaded = load_checkpoint(tmp_path / "new" / "folder" / "last.pth")
    assert loaded.pop("format_version") == FORMAT_VERSION
    assert loaded["a"].pop("b").equal(torch.arange(3))
    del state["a"]["b"]
    assert loaded == state


def test_a_full_disk_is_told_and_leaves_the_file_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    save_checkpoint(tmp_path / "last.pth", {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"last\.pth: can't be written; is the disk full\?"):
            save_checkpoint(tmp_path / "last.pth", {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(tmp_path / "last.pth")["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def save(*_):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        save_checkpoint(tmp_path / "last.pth", {})


def test_weights_bring_their_architecture_and_come_back_in_half_precision(tmp_path):
    network = make_network()
    save_weights(tmp_path / "best.pth", network)
    loaded = load_weights(tmp_path / "best.pth")
    assert loaded.architecture == network.architecture
    theirs = loaded.state_dict()
    for name, weight in network.state_dict().items():
        assert theirs[name].dtype == torch.float32
        assert theirs[name].equal(weight.half().float())


def test_weights_from_before_there_were_padding_modes_have_zeros(tmp_path):
    network = make_network()
    save_weights(tmp_path / "new.pth", network)
    state = load_checkpoint(tmp_path / "new.pth")
    del state["architecture"]["padding_modes"]
    save_checkpoint(tmp_path / "old.pth", state)
    loaded = load_weights(tmp_path / "old.pth")
    assert loaded.architecture["padding_modes"] == ["zeros", "zeros"]
    assert loaded.state_dict().keys() == network.state_dict().keys()


def test_default_weights_take_about_14_megabytes(tmp_path):
    save_weights(tmp_path / "best.pth", ExposureCorrectionNet([4, 3, 3, 3], [24, 24, 24, 16]))
    assert (tmp_path / "best.pth").stat().st_size == pytest.approx(2 * 7_016_016, rel=0.01)


def test_weights_hold_plain_types_only(tmp_path):
    save_weights(tmp_path / "best.pth", make_network())
    state = torch.load(tmp_path / "best.pth", weights_only=True)
    assert set(state) == {"format_version", "architecture", "weights"}
    assert {weight.dtype for weight in state["weights"].values()} == {torch.float16}


def test_saving_leaves_no_other_file_behind(tmp_path):
    save_weights(tmp_path / "best.pth", make_network())
    save_weights(tmp_path / "best.pth", make_network())
    assert [path.name for path in tmp_path.iterdir()] == ["best.pth"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    save_checkpoint(tmp_path / "last.pth", {"epoch": 1})
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(tmp_path / "last.pth", {"epoch": (x for x in ())})
    assert load_checkpoint(tmp_path / "last.pth")["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


@pytest.mark.parametrize("load", [load_checkpoint, load_weights])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.pth", "missing.pth: no such file; name one that train.py saved"),
        ("", "a folder; name the file in it, such as best.pth"),
    ],
)
def test_a_missing_file_is_named(tmp_path, load, name, words):
    with pytest.raises(FileNotFoundError, match=words):
        load(tmp_path / name)


def test_a_file_that_may_not_be_read_is_told_apart_from_a_damaged_one(tmp_path, monkeypatch):
    save_weights(tmp_path / "best.pth", make_network())

    def shut(*_, **__):
        raise PermissionError(13, "Permission denied", "best.pth")

    monkeypatch.setattr(torch, "load", shut)
    with pytest.raises(PermissionError, match=r"best\.pth: can't be read \(Permission denied\)"):
        load_weights(tmp_path / "best.pth")


@pytest.mark.parametrize("is_new_format", [True, False])
def test_code_inside_a_file_is_refused_and_not_run(tmp_path, is_new_format):
    path, proof = tmp_path / "evil.pth", tmp_path / "proof"
    state = {"format_version": FORMAT_VERSION, "weights": Malicious(proof)}
    torch.save(state, path, _use_new_zipfile_serialization=is_new_format)
    with pytest.raises(CheckpointError, match=r"evil\.pth: .*code inside, which is not run"):
        load_weights(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # the trap would have worked


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n"],
)
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        load_weights(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_half_downloaded_file_is_refused_by_name(tmp_path, share):
    path = tmp_path / "best.pth"
    save_weights(path, make_network())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"best\.pth"):
        load_weights(path)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused_by_name(tmp_path, seed):
    path = tmp_path / "random.pth"
    generator = torch.Generator().manual_seed(seed)
    path.write_bytes(bytes(torch.randint(256, (200,), generator=generator).tolist()))
    with pytest.raises(CheckpointError, match=r"random\.pth"):
        load_weights(path)


@pytest.mark.parametrize("state", [{}, {"format_version": 99}, [1, 2], None, {"weights": {}}])
def test_other_versions_are_refused_with_both_numbers(tmp_path, state):
    torch.save(state, tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match=r"old\.pth: format_version is .*reads 1"):
        load_weights(tmp_path / "old.pth")


@pytest.mark.parametrize("key", ["architecture", "weights"])
@pytest.mark.parametrize("value", [None, {}, [1], {"layer_counts": [1], "first_channels": [1]}])
def test_weights_that_do_not_fit_their_architecture_are_refused(tmp_path, key, value):
    path = tmp_path / "odd.pth"
    network = make_network()
    state = {"architecture": network.architecture, "weights": network.state_dict(), key: value}
    save_checkpoint(path, state)
    with pytest.raises(CheckpointError, match=r"odd\.pth: holds no exposure correction weights"):
        load_weights(path)


def test_a_training_checkpoint_is_no_file_of_weights(tmp_path):
    save_checkpoint(tmp_path / "last.pth", {"networks": {}, "optimizers": {}})
    words = r"last\.pth: a checkpoint of a run; name the best\.pth beside it"
    with pytest.raises(CheckpointError, match=words):
        load_weights(tmp_path / "last.pth")
