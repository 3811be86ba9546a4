"""What a training run leaves behind, and whether two runs left the same."""

import json

import torch

from checkpoint import load_checkpoint

RUN_FILES = [
    ".lock",
    "best.pth",
    "comparisons",
    "curve.png",
    "last.pth",
    "log.jsonl",
    "previous.pth",
]


def records_of(run_dir) -> list[dict]:
    """The log without the only thing that differs between equal runs."""
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in r.items() if key != "seconds"} for r in records]


def is_same(value, other) -> bool:
    """Bit-equality of nested dicts, lists, tensors and plain values."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(is_same(value[k], other[k]) for k in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(is_same, value, other))
    return value.equal(other) if isinstance(value, torch.Tensor) else value == other


def assert_runs_are_equal(run_dir, other_dir) -> None:
    state, other = (load_checkpoint(path / "last.pth") for path in (run_dir, other_dir))
    for key in ("networks", "optimizers", "progress"):
        assert is_same(state[key], other[key]), key
    assert records_of(run_dir) == records_of(other_dir)
    best, others = (load_checkpoint(path / "best.pth") for path in (run_dir, other_dir))
    assert is_same(best, others)
