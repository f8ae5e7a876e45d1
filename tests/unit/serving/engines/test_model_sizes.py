"""Weights, key-value cache of a token and longest context, by config.json and by headers of GGUF files.

The configurations are those that the models' pages on the Hugging Face Hub publish (config.json of the repository
named); parameters are those of their model cards, key-value caches of three models those of Table 1 of "Insights into
DeepSeek-V3" (arXiv 2505.09343).
"""

from __future__ import annotations

import logging

import pytest

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.model_sizes import ModelSizes, check_cache, check_context, of_config, of_gguf


def config(kind, hidden, layers, heads, kv, inner, vocab, context, **more):
    return {
        "model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "intermediate_size": inner, "vocab_size": vocab,
        "max_position_embeddings": context, "torch_dtype": "bfloat16", "tie_word_embeddings": False, **more,
    }  # fmt: skip


LLAMA_8B = config("llama", 4096, 32, 32, 8, 14336, 128256, 8192)


@pytest.mark.parametrize(
    ("document", "parameters", "cache", "context"),
    [
        pytest.param(LLAMA_8B, 8.03e9, 131_072, 8192, id="meta-llama/Meta-Llama-3-8B"),
        pytest.param(
            config("llama", 2048, 16, 32, 8, 8192, 128256, 131072, head_dim=64, tie_word_embeddings=True),
            1.24e9, 32_768, 131072, id="meta-llama/Llama-3.2-1B",
        ),
        pytest.param(
            config("llama", 16384, 126, 128, 8, 53248, 128256, 131072),
            405.8e9, 516_096, 131072, id="meta-llama/Llama-3.1-405B",
        ),
        pytest.param(
            config("qwen2", 3584, 28, 28, 4, 18944, 152064, 131072), 7.62e9, 57_344, 131072, id="Qwen/Qwen2-7B"
        ),
        pytest.param(
            config("qwen2", 8192, 80, 64, 8, 29568, 152064, 131072), 72.7e9, 327_680, 131072, id="Qwen/Qwen2.5-72B"
        ),
        pytest.param(
            config("mistral", 4096, 32, 32, 8, 14336, 32768, 32768, head_dim=None),
            7.25e9, 131_072, 32768, id="mistralai/Mistral-7B-v0.3",
        ),
        pytest.param(
            config("mistral", 5120, 40, 32, 8, 14336, 131072, 131072, head_dim=128),
            12.2e9, 163_840, 131072, id="mistralai/Mistral-Nemo-Instruct-2407: heads of 128, not 5120 / 32",
        ),
        pytest.param(
            config("mixtral", 4096, 32, 32, 8, 14336, 32000, 32768, num_local_experts=8),
            46.7e9, 131_072, 32768, id="mistralai/Mixtral-8x7B-v0.1",
        ),
        pytest.param(
            {k: v for k, v in config("gemma", 3072, 28, 16, 16, 24576, 256000, 8192, head_dim=256).items()
             if k != "tie_word_embeddings"},
            8.54e9, 458_752, 8192, id="google/gemma-7b: heads of 256, embeddings tied by default",
        ),
        pytest.param(
            config("gemma2", 3584, 42, 16, 8, 14336, 256000, 8192, head_dim=256, tie_word_embeddings=True),
            9.24e9, 344_064, 8192, id="google/gemma-2-9b",
        ),
    ],
)  # fmt: skip
def test_public_models_have_their_published_sizes(document, parameters, cache, context):
    sizes = of_config(document)
    assert sizes.weights == pytest.approx(2 * parameters, rel=0.005)
    assert (sizes.cache_per_token, sizes.context, sizes.unknown) == (cache, context, ())


DEEPSEEK_V3 = config(
    "deepseek_v3", 7168, 61, 128, 128, 18432, 129280, 163840, kv_lora_rank=512, qk_rope_head_dim=64, v_head_dim=128
)


def test_the_latent_cache_of_deepseek_counts_and_its_weights_are_named_as_not_handled():
    sizes = of_config(DEEPSEEK_V3)
    assert sizes.cache_per_token == 70_272
    assert sizes.weights is None
    assert sizes.unknown == ("weights: model type deepseek_v3 is not handled without its files",)


@pytest.mark.parametrize(
    ("changes", "factor"), [({"torch_dtype": "float32"}, 2), ({"num_key_value_heads": None}, 4), ({"head_dim": 256}, 2)]
)
def test_data_type_heads_and_head_size_count(changes, factor):
    assert of_config({**LLAMA_8B, **changes}).cache_per_token == factor * 128 * 1024


def test_a_cache_of_8_bits_has_half_the_bytes():
    assert of_config(LLAMA_8B, "fp8_e4m3").cache_per_token == 64 * 1024


def test_quantised_weights_have_their_bits():
    awq = of_config({**LLAMA_8B, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert awq.weights == pytest.approx(4.0e9, rel=0.01)
    assert awq.cache_per_token == 128 * 1024


def test_the_text_part_of_a_model_that_sees_images_counts_and_its_weights_need_the_files():
    both = {"model_type": "mllama", "text_config": LLAMA_8B, "vision_config": {"hidden_size": 1280}}
    assert of_config(both).cache_per_token == 128 * 1024
    assert of_config(both).weights is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "config.json has no num_hidden_layers"),
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768}, "has no num_hidden_layers"),
        ({**LLAMA_8B, "mamba_d_state": 128}, "layers without attention"),
        ({**LLAMA_8B, "layer_types": ["linear_attention", "full_attention"]}, "layers without attention"),
        ({**LLAMA_8B, "torch_dtype": "int3"}, "data type int3"),
    ],
)
def test_a_cache_that_is_not_handled_is_named_and_not_guessed(document, reason):
    sizes = of_config(document)
    assert sizes.cache_per_token is None
    assert any(reason in one for one in sizes.unknown)


def header(**more):
    base = {"block_count": 2, "attention.head_count": 4, "embedding_length": 256, "context_length": 2048}
    return {"general.architecture": "x", **{f"x.{name}": value for name, value in (base | more).items()}}


def test_layers_of_a_gguf_file_may_have_heads_of_their_own():
    given = header(**{"attention.head_count": [4, 4], "attention.head_count_kv": [4, 1]})
    assert of_gguf(given, 7) == ModelSizes(7, (4 + 1) * (64 + 64) * 2, 2048)


def test_quantised_keys_and_values_of_llama_cpp_count():
    sizes = of_gguf(header(), 7, ("q8_0", "q4_0"))
    assert sizes.cache_per_token == 2 * 4 * 64 * (34 + 18) // 32


@pytest.mark.parametrize("given", [{}, header(**{"ssm.state_size": 16}), {"general.architecture": "x"}])
def test_a_header_without_attention_leaves_the_cache_unknown(given):
    sizes = of_gguf(given, 7)
    assert (sizes.weights, sizes.cache_per_token) == (7, None)
    assert sizes.unknown


SMALL = PoolConfig(service="a", tier="edge", model="m", slots=4, context_tokens=1000)


def test_a_context_longer_than_the_models_is_refused_unless_arguments_extend_it():
    with pytest.raises(ValueError, match=r"contextTokens: .* 512.*got 1000.*ContextTooLong.*hint"):
        check_context(ModelSizes(context=512), 1000, {})
    check_context(ModelSizes(context=512), 1000, {"rope_scaling_type": "yarn"})
    check_context(ModelSizes(), 1000, {})


def test_a_cache_that_does_not_hold_one_context_is_refused_and_one_too_small_for_all_slots_is_a_warning(caplog):
    sizes = ModelSizes(cache_per_token=1024)
    with pytest.raises(ValueError, match=r"contextTokens: 1000 tokens .*KVCacheTooSmall.*set it to 999"):
        check_cache(sizes, SMALL, 1024 * 999.5)
    with caplog.at_level(logging.WARNING):
        check_cache(sizes, SMALL, 1024 * 4000)
        assert not caplog.records
        check_cache(sizes, SMALL, 1024 * 3999)
    assert "4 slots x 1000 tokens" in caplog.text
    check_cache(sizes, SMALL, None)
