import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, processes_of

from checkpoint import load_checkpoint
from interruption import SIGNALS, Interrupted, StopSignal


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_a_later_one_ends_the_program(number):
    script = f"""
import os, time, interruption
stop = interruption.StopSignal()
assert stop.number == 0
for _ in range(2):  # as from the terminal and from torchrun
    os.kill(os.getpid(), {number:d})
    assert stop.number == {number:d}
time.sleep(1.05)
os.kill(os.getpid(), {number:d})
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == -number
    assert result.stderr == "\nstopping after this step; again to stop at once\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_raised_and_a_later_one_ends_the_program(number):
    script = f"""
import os, time, interruption
interruption.raise_at_signal()
try:
    os.kill(os.getpid(), {number:d})
    time.sleep(9)
except KeyboardInterrupt as stopped:
    assert stopped.number == {number:d}
os.kill(os.getpid(), {number:d})  # as from the terminal and from torchrun
time.sleep(1.05)
os.kill(os.getpid(), {number:d})
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (-number, "")


def test_a_signal_while_libraries_are_imported_ends_train_without_a_traceback(tmp_path):
    (tmp_path / "cv2.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    result = subprocess.run(
        [sys.executable, "train.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_lines_that_nobody_reads_stop_nothing():
    script = "from interruption import say; input(); say('a'); say('b'); print('c')"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.communicate("\n")[1] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_waits_for_others_ends_at_once(number):
    script = """
import socket, distributed, interruption
interruption.raise_at_signal()
print("waits", flush=True)
distributed.wait_for_others()
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    rendezvous = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | rendezvous | {"RANK": "0", "WORLD_SIZE": "2"},
        stdout=subprocess.PIPE,
    )
    with process:
        process.stdout.readline()
        time.sleep(1)  # until it is in the midst of it
        process.send_signal(number)
        try:
            assert process.wait(20) == -number
        finally:
            process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_that_are_ignored_stay_so(number):
    signal.signal(number, signal.SIG_IGN)
    StopSignal()
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize(("number", "exit_code"), [(2, 130), (15, 143), (1, 129)])
def test_exit_codes_are_those_of_shells(number, exit_code):
    interruption = Interrupted(number, "stopped")
    assert (interruption.exit_code, str(interruption)) == (exit_code, "stopped")


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait for a file that a process writes."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_each_process_of_a_run_leaves_a_checkpoint_and_no_process(
    train_settings, write_json, write_photos, tmp_path, number
):
    write_photos(tmp_path / "train", 500)  # an epoch of seconds
    settings = train_settings | {"num_workers": 2, "log_steps": 5}
    command = [sys.executable, "train.py", "--conf", str(write_json("conf.json", settings))]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(tmp_path / "run" / "log.jsonl", process)
        pids = processes_of(process.pid)
        assert len(pids) >= 3
        for pid in pids:
            os.kill(pid, number)
        _, error = process.communicate(timeout=30)
        left = processes_of(process.pid)
    finally:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 128 + number
    assert re.search(r"stopped in epoch 1 after \d+ photos; the same command goes on", error)
    assert "Traceback" not in error
    assert left == []
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["photo_count"] >= 10


def test_a_run_that_fails_does_not_wait_for_its_workers(train_settings, write_json):
    config = write_json("conf.json", train_settings | {"num_workers": 1})
    script = f"import train; train.train_step = None; train.main(['--conf', {str(config)!r}])"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1 and "TypeError" in result.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="closes a terminal of Unix")
def test_a_terminal_that_closes_leaves_a_checkpoint(
    train_settings, write_json, write_photos, tmp_path
):
    write_photos(tmp_path / "train", 500)  # an epoch of seconds
    config = write_json("conf.json", train_settings | {"num_workers": 1, "log_steps": 5})
    master, terminal = os.openpty()
    name = os.ttyname(terminal)  # it becomes that of the session whose first process opens it
    command = f'exec "$0" train.py --conf "$1" <{name} >{name} 2>{name}'
    process = subprocess.Popen(
        ["sh", "-c", command, sys.executable, str(config)], cwd=ROOT, start_new_session=True
    )
    os.close(terminal)
    wait_for(tmp_path / "run" / "log.jsonl", process)
    os.close(master)
    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["photo_count"] >= 10
