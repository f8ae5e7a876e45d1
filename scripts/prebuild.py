"""Build the Go programs and images of the slower tests in the background, while the faster ones run.

    python scripts/prebuild.py              returns at once; the log is out/prebuild.log
    python scripts/prebuild.py --programs   builds the programs here, and returns when they are there
    python scripts/prebuild.py --wait       the same with the images of the host cluster

`make test` begins with the first; `make test-contract` and `make test-k8s` begin with the others, so that no test
waits for a build: a build takes longer than a test may. All take the same locks, one per program, so what is under way
is waited for and the rest is built.
"""

from __future__ import annotations

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
        command = ["nice", "-n", str(NICENESS), sys.executable, __file__, "--wait"]
        subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f"prebuild: programs and images of the slower tests, in the background ({LOG.relative_to(Path.cwd())})")


def build(*, with_images: bool) -> None:
    """Build everything, in the order in which tests need it; SystemExit with a hint if a build fails."""
    kube_binaries.ensure()
    kube_binaries.kubectl()
    kube_binaries.kuberay_operator()
    kube_binaries.helm()
    if not with_images:
        return
    if reason := binaries.missing():
        print(f"prebuild: no cluster of kubelets on this host: {reason}")
        return
    found = binaries.ensure()
    images.ensure(found.buildah, found.containerd, found.ctr)


if __name__ == "__main__":
    if sys.argv[1:]:
        build(with_images=sys.argv[1:] == ["--wait"])
    else:
        start()
