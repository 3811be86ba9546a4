import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, processes_of

import train
from checkpoint import load_checkpoint
from distributed import (
    SharedBatchNorm,
    average_gradients,
    gather,
    launch,
    rank,
    rank_count,
    share_batch_norms,
    share_weights,
)

needs_loopback = pytest.mark.skipif(
    not os.path.isdir("/sys/class/net/lo"), reason="names the loopback of Linux"
)
# The batch norm takes away what this bias adds: its gradient is rounding noise, and Adam, which
# looks at no gradient's size, makes steps of it that no loss sees. The mean of the norm follows.
UNDETERMINED = {"layers.2.bias", "layers.3.running_mean"}


def records_of(run_dir) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def torchrun(config) -> subprocess.CompletedProcess:
    """Train with two processes that find each other on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc_per_node", "2", "train.py", "--conf", str(config)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_one_process_is_alone():
    assert (rank(), rank_count()) == (0, 1)


def test_gathering_from_one_process_gives_its_value():
    value = {"psnr": [1.0, 2.0]}
    (gathered,) = gather(value)
    assert gathered is value


def test_gradients_of_one_process_stay_what_they_are():
    network = torch.nn.Linear(3, 2)
    network(torch.ones(1, 3)).sum().backward()
    network.bias.grad = None  # a weight that does not learn now
    before = network.weight.grad.clone()
    average_gradients(network)
    assert network.weight.grad.equal(before) and network.bias.grad is None


def share_from(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    torch.manual_seed(rank)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(network.state_dict(), folder / f"before_{rank}.pth")
    share_weights(network)
    torch.save(network.state_dict(), folder / f"after_{rank}.pth")
    torch.distributed.destroy_process_group()


@needs_loopback
def test_all_processes_begin_with_the_weights_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(share_from, (tmp_path,), nprocs=2)
    first, second, *after = (
        torch.load(tmp_path / f"{name}.pth")
        for name in ("before_0", "before_1", "after_0", "after_1")
    )
    assert not first["0.weight"].equal(second["0.weight"])
    for state in after:
        assert all(state[name].equal(weights) for name, weights in first.items())


def test_batch_norms_of_one_process_are_what_they_were():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    before, batch = network.state_dict(), torch.rand(2, 3, 5, 5)
    expected = copy.deepcopy(network)(batch)
    share_batch_norms(network)
    assert type(network[1]) is SharedBatchNorm and network.state_dict().keys() == before.keys()
    assert network(batch).equal(expected)


def test_without_a_gpu_the_run_is_in_this_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    calls = []
    assert launch(lambda *arguments: calls.append(arguments) or 7, "a", 1) == 7
    assert calls == [(torch.device("cpu"), "a", 1)]


def test_a_rank_that_is_not_torchruns_is_no_reason_to_join_others(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert launch(lambda device: 7) == 7


@needs_loopback
def test_two_processes_train_as_one_does(train_settings, write_photos, write_json, tmp_path):
    write_photos(tmp_path / "train", 6)
    write_photos(tmp_path / "valid", 3)  # which two processes cannot share evenly
    settings = train_settings | {
        "begin_use_level_epoch": [1, 2],
        "is_first_stage_frozen": True,
        "begin_use_adv_loss_epoch": 2,
        "discriminator_init_lr": 1e-4,
        "ema_decay": 0.9,
        "agreement_weight": 0.5,
    }
    alone = settings | {"model_save_dir": str(tmp_path / "alone")}
    assert train.main(["--conf", str(write_json("alone.json", alone))]) == 0

    together = settings | {"model_save_dir": str(tmp_path / "together")}
    result = torchrun(write_json("together.json", together))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/2", "2/2"]
    assert result.stdout.count("done: the best weights") == 1
    assert "Warning" not in result.stderr
    names = [sorted(p.name for p in (tmp_path / d).iterdir()) for d in ("alone", "together")]
    assert names[0] == names[1]

    pairs = zip(records_of(tmp_path / "alone"), records_of(tmp_path / "together"), strict=True)
    for one, two in pairs:
        assert one["epoch"] == two["epoch"] and one["active_levels"] == two["active_levels"]
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
        for name, score in one["valid"].items():
            assert two["valid"][name]["psnr"] == pytest.approx(score["psnr"], abs=1e-3)
            assert two["valid"][name]["ssim"] == pytest.approx(score["ssim"], abs=1e-4)

    states = [load_checkpoint(tmp_path / name / "last.pth") for name in ("alone", "together")]
    for network in ("generator", "average", "discriminator"):
        one, two = (state["networks"][network] for state in states)
        for name in one.keys() - UNDETERMINED:
            difference = (two[name] - one[name]).abs().double()
            # Where a gradient is almost zero, as some of the discriminator's are, rounding decides
            # on the direction of Adam's step.
            distance = difference.mean() if network == "discriminator" else difference.max()
            assert distance < 1e-5, name


@pytest.fixture
def two_processes(train_settings, write_json, tmp_path):
    """A command whose two processes train without end, once their first checkpoint is there."""
    config = write_json("conf.json", train_settings | {"epochs": 10_000})
    # The CPU plays two GPUs: processes that find none talk by gloo.
    script = (
        "import sys, torch, train; torch.cuda.device_count = lambda: 2; "
        f"sys.exit(train.main(['--conf', {str(config)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "last.pth").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@needs_loopback
def test_a_signal_to_each_process_that_one_command_started_leaves_a_checkpoint(
    two_processes, tmp_path
):
    for pid in processes_of(two_processes.pid):
        os.kill(pid, signal.SIGTERM)
    _, error = two_processes.communicate(timeout=30)
    assert two_processes.returncode == 143
    assert "Traceback" not in error
    assert error.count("; the same command goes on from there") == 1, error
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["step_count"] > 0


@needs_loopback
def test_the_death_of_one_process_ends_all(two_processes):
    children = Path(f"/proc/{two_processes.pid}/task/{two_processes.pid}/children").read_text()
    ranks = [
        pid
        for pid in map(int, children.split())
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, error = two_processes.communicate(timeout=60)
    assert two_processes.returncode == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    message = (
        "process 1 of 2 was killed by SIGKILL; the same command goes on from the last checkpoint"
    )
    assert message in error.splitlines()
