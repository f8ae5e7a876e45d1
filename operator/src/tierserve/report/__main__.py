"""`python -m tierserve.report RUN.json [FOLDER]`: make page and picture again from a saved run."""

from __future__ import annotations

import sys
from pathlib import Path

from tierserve.report import RunRecord, write_report

if __name__ == "__main__":
    source = Path(sys.argv[1])
    for path in write_report(RunRecord.read(source), Path(sys.argv[2]) if len(sys.argv) > 2 else source.parent):
        print(path)
