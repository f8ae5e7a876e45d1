"""What is bundled is what the decision records: version, licence and hashes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UPLOT = ROOT / "operator/src/tierserve/console/static/vendor/uplot"


def test_the_bundled_files_have_the_recorded_hashes_and_a_licence():
    page = (ROOT / "docs/decisions/0027-console.md").read_text()
    recorded = dict(re.findall(r"^\| `(uPlot[^`]+)` \| ([0-9a-f]{64}) \|$", page, re.M))
    files = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in UPLOT.iterdir() if one.name != "LICENSE"}
    assert files == recorded
    assert "MIT License" in (UPLOT / "LICENSE").read_text()
    (version,) = re.findall(r"\(v([\d.]+)\)", (UPLOT / "uPlot.esm.js").read_text()[:300])
    assert f"Version {version} " in page
