from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys

import pytest

COMMAND = (
    sys.executable,
    "-c",
    "import typer; from tierserve.cli.loadgen.command import load; from tierserve.cli.errors import UserError\n"
    "import sys\n"
    "try: typer.run(load)\n"
    "except UserError as e: print(e, file=sys.stderr); sys.exit(e.code)",
)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, check=False)


def test_steps_of_connections_give_a_line_each_and_a_file_of_samples(chat_url, tmp_path):
    file = tmp_path / "samples.csv"
    done = run(chat_url, "--connections", "1,3", "--duration", "1s", "--slo", "500ms", "--samples", str(file))
    assert done.returncode == 0, done.stderr
    assert "pool cloud-default" in done.stdout
    assert "within 500 ms" in " ".join(done.stdout.split())
    assert "closed loop" in done.stdout
    assert {line["step"] for line in csv.DictReader(file.open())} == {"1", "3"}


def test_a_piece_of_a_trace_is_replayed_in_its_compressed_time(chat_url):
    done = run(chat_url, "--trace", "azure-code", "--start", "3m", "--length", "1m", "--time-scale", "60",
               "--max-input", "16", "--max-tokens", "8", "-o", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["total"]["requests"] == 531
    assert result["total"]["errors"] == 0


def test_interrupt_prints_what_was_measured(chat):
    process = subprocess.Popen([*COMMAND, chat.url, "--connections", "2", "--duration", "60s"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert chat.asked.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped by hand" in out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["http://192.0.2.1", "--rate", "1"], "--allow-remote"),
        (["http://127.0.0.1:9"], "--connections, --rate, --trace"),
        (["http://127.0.0.1:9", "--rate", "fast"], "rate: is not valid ('fast')"),
        (["http://127.0.0.1:9", "--connections", "20000"], "run several processes"),
    ],
)
def test_a_mistake_is_two_lines_with_its_mend(args, says):
    done = run(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
