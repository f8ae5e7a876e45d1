"""Build the Go programs and images of the slower tests in the background, while the faster ones run.

    python scripts/prebuild.py            returns at once; the log is out/prebuild.log
    python scripts/prebuild.py --wait     builds here, and returns when all is built

Used by `make test`. Tests that need a program take the same locks, so they wait for a build that is under way and do
the rest themselves: a build that fails here is tried again, and reported, by the first test that needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kube_binaries
from host_cluster import binaries, images

LOG = Path(__file__).resolve().parent.parent / "out" / "prebuild.log"
NICENESS = 5
"""Below the tests that run meanwhile, so that a test's own time-outs still hold on two cores."""


def start() -> None:
    """Start the builds in a background process."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as sink:
        command = [sys.executable, __file__, "--wait"]
        subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f"prebuild: programs and images of the slower tests, in the background ({LOG.relative_to(Path.cwd())})")


def build() -> None:
    """Build everything, in the order in which tests need it; SystemExit with a hint if a build fails."""
    os.nice(NICENESS)
    kube_binaries.ensure()
    kube_binaries.kubectl()
    kube_binaries.kuberay_operator()
    kube_binaries.helm()
    if reason := binaries.missing():
        print(f"prebuild: no cluster of kubelets on this host: {reason}")
        return
    found = binaries.ensure()
    images.ensure(found.buildah, found.containerd, found.ctr)


if __name__ == "__main__":
    build() if sys.argv[1:] == ["--wait"] else start()
