"""Files of the host cluster: all below one folder of the user's cache, none in the checkout."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Images and binaries, kept from one cluster to the next."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tierserve"


def cluster_dir() -> Path:
    """The running cluster; one at a time, since networks and addresses are the host's."""
    return cache() / "cluster"


def kubeconfig() -> Path:
    """The administrator's kubeconfig."""
    return cluster_dir() / "kubeconfig"


def image_store() -> Path:
    """A containerd root with all images unpacked, of which each node gets a copy by hard links."""
    return cache() / "images"
