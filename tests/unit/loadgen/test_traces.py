from __future__ import annotations

import numpy as np
import pytest

from tierserve.loadgen import LoadError, load_trace, trace_names


def test_the_azure_trace_is_the_published_one():
    trace = load_trace("azure-code")
    assert len(trace) == 8819
    assert trace.rate == pytest.approx(2.57, abs=0.01)
    assert trace.times_s[0] == 0.0
    assert trace.input_tokens.mean() == pytest.approx(2048, abs=1)
    assert "CC-BY 4.0" in trace.source


def test_batched_stamps_are_spread_over_their_interval():
    """Mooncake recorded arrivals every 3 s: 90% of its gaps are zero until they are spread."""
    trace = load_trace("mooncake-conversation")
    gaps = np.diff(trace.times_s)
    assert len(trace) == 12031
    assert np.all(gaps >= 0)
    assert (gaps == 0).mean() < 0.01
    counts = np.bincount((trace.times_s // 3).astype(int))
    assert counts[:5].tolist() == np.bincount(np.minimum(_stamps() // 3, 10**6).astype(int))[:5].tolist()


def _stamps():
    from importlib import resources

    text = resources.files("tierserve.loadgen").joinpath("data/mooncake_conversation.csv").read_text()
    # stamps are off by up to 1 ms from multiples of 3 s
    return np.array([float(line.split(",")[0]) for line in text.splitlines()[1:]]) / 1e3 + 0.002


def test_spreading_is_the_same_for_the_same_seed():
    first, again = load_trace("mooncake-conversation", seed=3), load_trace("mooncake-conversation", seed=3)
    assert np.array_equal(first.times_s, again.times_s)


def test_a_piece_counts_from_its_start_and_keeps_its_length():
    piece = load_trace("azure-code").piece(180, 120)
    assert piece.length_s == 120
    assert 0 <= piece.times_s[0] < piece.times_s[-1] < 120
    assert len(piece) == 531 + 187


def test_compression_divides_the_time_and_keeps_the_requests():
    piece = load_trace("azure-code").piece(180, 120)
    fast = piece.compressed(10)
    assert len(fast) == len(piece)
    assert fast.length_s == pytest.approx(12)
    assert fast.rate == pytest.approx(10 * piece.rate)


def test_tokens_are_scaled_then_capped_and_never_zero():
    capped = load_trace("azure-code").capped(max_input=512, max_output=64, scale=0.01)
    assert capped.input_tokens.max() <= 512
    assert capped.output_tokens.min() == 1


@pytest.mark.parametrize(("start", "length"), [(10_000, 10), (60, 30)])
def test_an_empty_piece_says_so(start, length):
    trace = load_trace("azure-code").piece(0, 3000)
    with pytest.raises(LoadError, match="no request between"):
        trace.piece(start, length) if start > 100 else trace.piece(70, 50)


def test_an_unknown_trace_names_the_shipped_ones():
    with pytest.raises(LoadError) as caught:
        load_trace("nothing-such")
    assert all(name in caught.value.hint for name in trace_names())


def test_wrong_columns_name_the_right_ones(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("when,a,b\n1,2,3\n")
    with pytest.raises(LoadError, match="when") as caught:
        load_trace(file)
    assert "TIMESTAMP,ContextTokens,GeneratedTokens" in caught.value.hint


def test_an_own_file_of_the_same_columns_is_read(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("timestamp_ms,input_length,output_length\n2000,5,6\n1000,3,4\n")
    trace = load_trace(file)
    assert trace.times_s.tolist() == [0.0, 1.0]
    assert trace.input_tokens.tolist() == [3, 5]
