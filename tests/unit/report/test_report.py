from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tierserve.report import PoolPoint, RunRecord, headline, write_report
from tierserve.report.page import html
from tierserve.report.record import replica_seconds


def test_a_report_is_one_page_one_picture_and_the_run(record, tmp_path):
    page, picture = write_report(record, tmp_path / "out")
    assert page.name == "index.html"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert RunRecord.read(page.parent / "run.json") == RunRecord.read(page.parent / "run.json")


@pytest.mark.slow
def test_a_saved_run_makes_the_same_page_again(record, tmp_path):
    page, _ = write_report(record, tmp_path)
    assert html(RunRecord.read(tmp_path / "run.json")) == page.read_text()


def test_the_page_names_no_other_host(record):
    """Offline means offline: no address but the names of XML namespaces."""
    text = html(record)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert all(a.startswith("http://www.w3.org/") for a in addresses), addresses
    assert not re.search(r"<(script|iframe|link[^>]+stylesheet)", text)


class _Ids(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.used, self.text = [], set(), []

    def handle_starttag(self, _tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href") and (value or "").startswith("#"):
                self.used.add(value[1:])

    def handle_data(self, data):
        self.text.append(data)


def test_every_reference_in_the_charts_is_defined_on_the_page(record):
    parser = _Ids()
    parser.feed(html(record))
    assert parser.used <= set(parser.ids)


def test_the_page_shows_figures_and_text_and_escapes_what_a_model_wrote(record):
    text = html(record)
    assert "Because &lt;air&gt; scatters" in text
    for shown in ("1,140 ms", "±7%", "2 cores, 24 GB", "CC-BY 4.0", "A note &amp; more"):
        assert shown in text


class _Tables(HTMLParser):
    """Every table of a page as rows of texts."""

    def __init__(self):
        super().__init__()
        self.tables, self._inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.tables[-1][-1][-1] += data


def test_every_cell_of_the_table_stands_under_its_head(record):
    parser = _Tables()
    parser.feed(html(record))
    (heads, *rows) = parser.tables[0]
    assert {len(row) for row in rows} == {len(heads)}
    by_step = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert len(by_step) == len(record.steps)
    for step in record.steps:
        cells = by_step[step.name]
        assert cells["connections"] == ("-" if step.connections is None else f"{step.connections}")
        assert cells["requests"] == f"{step.requests:,}"
        assert cells["requests/s"] == f"{step.rate:.1f}"
        assert cells["p95"] == f"{step.p95_s * 1e3:,.0f} ms"
        assert cells["errors"] == f"{step.errors}"
    assert by_step["128"]["edge replicas"] == "4"
    assert by_step["azure-code"]["within"] == "98.5%"


def test_the_sentence_holds_the_figures(record):
    sentence = headline(record)
    for figure in ("1 to 128 connections", "1000 and 1140 ms", "1500 ms", "100.0%", "(98.5% in the trace)", "4 edge"):
        assert figure in sentence
    assert "missing" not in sentence


def test_a_missed_target_is_said_and_marked(missed):
    assert [s.name for s in missed.misses()] == ["8", "16", "32", "64", "128"]
    assert "missing the 1500 ms target at 8, 16, 32, 64, 128" in headline(missed)
    assert 'class="bad"' in html(missed)


def test_replica_seconds_hold_each_count_until_the_next():
    points = [PoolPoint(-5.0, 2), PoolPoint(10.0, 4), PoolPoint(15.0, 0), PoolPoint(20.0, 1)]
    assert replica_seconds(points, 30.0) == pytest.approx(2 * 10 + 4 * 5 + 0 + 10)
    assert replica_seconds(points, 12.0) == pytest.approx(2 * 10 + 4 * 2)
    assert replica_seconds([], 12.0) == 0.0
