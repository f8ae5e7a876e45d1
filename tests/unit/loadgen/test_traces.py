from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

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


def written(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> Path:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_wrong_columns_name_the_right_ones(tmp_path):
    with pytest.raises(LoadError, match="when") as caught:
        load_trace(written(tmp_path, "when,a,b\n1,2,3\n"))
    assert "ContextTokens" in caught.value.hint


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-09 08:00:00.25,480,10\n2024-01-09 08:00:04.125,110,27\n"
MOONCAKE = (
    '{"timestamp": 0, "input_length": 480, "output_length": 10, "hash_ids": [0, 1]}\n\n'
    '{"timestamp": 3875, "input_length": 110, "output_length": 27, "hash_ids": [0]}\n'
)
FORMS = {
    "azure": AZURE,
    "azure with offsets": AZURE.replace(".25,", ".250000+00:00,").replace("08:00:04.125", "10:00:04.125+02:00"),
    "azure with Z and 100 ns": AZURE.replace(".25,", ".2500000,").replace("04.125", "04.1250000Z"),
    "columns swapped": "GeneratedTokens,TIMESTAMP,ContextTokens\n"
    "10,2024-01-09T08:00:00.25,480\n27,2024-01-09T08:00:04.125,110",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    '0,ChatGPT,480,10,490,"Conversation, long"\n3.875,GPT-4,110,27,137,API log\n',
    "mooncake": MOONCAKE,
    "servegen": "request_id,timestamp,input_tokens,output_tokens\n0,7.0,480,10\n1,10.875,110,27\n",
    "as shipped": "timestamp_ms,input_length,output_length\n3875,110,27\n0,480,10\n",
    "crlf": AZURE.replace("\n", "\r\n"),
    "cr": AZURE.replace("\n", "\r"),
    "byte order mark": b"\xef\xbb\xbf" + AZURE.encode(),
    "byte order mark, json": b"\xef\xbb\xbf" + MOONCAKE.encode(),
    "utf-16": AZURE.encode("utf-16"),
    "utf-16 big endian": b"\xfe\xff" + AZURE.encode("utf-16-be"),
    "gzip": gzip.compress(AZURE.encode()),
    "gzip of utf-16": gzip.compress(AZURE.encode("utf-16")),
    "semicolons": AZURE.replace(",", ";"),
    "tabs": AZURE.replace(",", "\t"),
    "float tokens": AZURE.replace("480,10", "480.0,10.0"),
    "empty lines": "\n\n" + AZURE.replace("\n", "\n,,\n") + "\n",
    "other case and blanks": AZURE.replace("ContextTokens", " context_tokens "),
    "latin-1 in another column": b"Timestamp,Request tokens,Response tokens,who\n0,480,10,Jos\xe9\n3.875,110,27,b\n",
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_public_forms_are_read_by_the_names_of_their_columns(tmp_path, content):
    trace = load_trace(written(tmp_path, content))
    assert trace.times_s.tolist() == pytest.approx([0.0, 3.875], abs=1e-6)
    assert trace.input_tokens.tolist() == [480, 110]
    assert trace.output_tokens.tolist() == [10, 27]


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-09 08:00:00,1,2\n"
WRONG_CELLS = {
    "empty time": (HEADER + ",318,8\n", "TIMESTAMP"),
    "empty tokens": (HEADER + "2024-01-09 08:00:01,,8\n", "ContextTokens"),
    "no number": (HEADER + "2024-01-09 08:00:01,many,8\n", "ContextTokens"),
    "negative": (HEADER + "2024-01-09 08:00:01,5,-8\n", "GeneratedTokens"),
    "nan": (HEADER + "2024-01-09 08:00:01,5,nan\n", "GeneratedTokens"),
    "huge": (HEADER + "2024-01-09 08:00:01,5,1e300\n", "GeneratedTokens"),
    "no time": (HEADER + "yesterday,5,8\n", "TIMESTAMP"),
    "NaT": (HEADER + "NaT,5,8\n", "TIMESTAMP"),
    "infinite time": (HEADER + "inf,5,8\n", "TIMESTAMP"),
    "number among dates": (HEADER + "17.5,5,8\n", "TIMESTAMP"),
    "cells too few": (HEADER + "2024-01-09 08:00:01,5\n", "cells"),
    "cells too many": (HEADER + "2024-01-09 08:00:01,1,024,5\n", "cells"),
    "json null": ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n\n{"timestamp": null}', "timestamp"),
    "json true": ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n\n{"timestamp": true}', "timestamp"),
    "json list": ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n\n[1]', "JSON"),
    "json cut off": ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n\n{"timest', "JSON"),
}


@pytest.mark.parametrize(("content", "part"), WRONG_CELLS.values(), ids=WRONG_CELLS)
def test_a_wrong_cell_is_refused_with_file_line_and_column(tmp_path, content, part):
    with pytest.raises(LoadError) as caught:
        load_trace(written(tmp_path, content))
    assert caught.value.message.startswith("t.csv, line 3: ")
    assert part in caught.value.message
    assert "\n" not in caught.value.message


NO_TRACES = {
    "empty": b"",
    "blank": b"\n \n",
    "header alone": HEADER.splitlines()[0].encode(),
    "one request": HEADER.encode(),
    "one instant": (HEADER + HEADER.splitlines()[1]).encode(),
    "ten thousand years": b"timestamp,input_tokens,output_tokens\n0,1,1\n1e12,1,1\n",
    "infinitely long": b"timestamp,input_tokens,output_tokens\n-1e308,1,1\n1e308,1,1\n",
    "no times": b'{"request_id": 0, "input_length": 61, "output_length": 2370}\n',
    "json array": b'[{"timestamp": 0}]',
    "nul bytes": b"\0" * 100,
    "junk": bytes(range(256)) * 10,
    "half of a gzip": gzip.compress(HEADER.encode() * 50)[:40],
    "gzip in name only": b"\x1f\x8b" + b"x" * 50,
    "a quote never closed": ('"' + HEADER * 9000).encode(),
    "utf-16 cut off": HEADER.encode("utf-16")[:-1],
    "picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
}


@pytest.mark.parametrize("content", NO_TRACES.values(), ids=NO_TRACES)
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path, content):
    with pytest.raises(LoadError) as caught:
        load_trace(written(tmp_path, content))
    assert "t.csv" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", [".", "/dev/zero", "/dev/null", "no\0name", "x" * 5000, ""])
def test_what_is_no_file_is_refused(name):
    with pytest.raises(LoadError) as caught:
        load_trace(name)
    assert caught.value.hint


def test_a_trace_comes_through_a_pipe_too(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(AZURE.encode()),))
    writer.start()
    assert load_trace(pipe).input_tokens.tolist() == [480, 110]
    writer.join()


def test_stamps_of_whole_seconds_are_spread_over_their_second(tmp_path):
    rows = "0,1,1\n29,2,2\n29,3,3\n30,5,5\n64,4,4\n"
    trace = load_trace(written(tmp_path, "Timestamp,Request tokens,Response tokens\n" + rows))
    assert trace.times_s.astype(int).tolist() == [0, 29, 29, 30, 64]


def test_the_whole_of_a_trace_has_its_last_request(tmp_path):
    trace = load_trace(written(tmp_path, AZURE))
    assert len(trace.piece()) == 2
    assert len(trace.piece(0.0, 3.875)) == 2
    assert len(trace.piece(0.0, 3.8)) == 1


def test_an_own_file_of_the_same_columns_is_read(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("timestamp_ms,input_length,output_length\n2000,5,6\n1000,3,4\n")
    trace = load_trace(file)
    assert trace.times_s.tolist() == [0.0, 1.0]
    assert trace.input_tokens.tolist() == [3, 5]
