"""Where one local service keeps its state: a folder per user and service, and a short one for Ray's sockets."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$")


def state_root() -> Path:
    """The folder of all services: $TIERSERVE_STATE, $XDG_STATE_HOME/tierserve, or ~/.local/state/tierserve."""
    if explicit := os.environ.get("TIERSERVE_STATE"):
        return Path(explicit)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tierserve"


@dataclass(frozen=True, slots=True)
class ServicePaths:
    """The files of one service. Unix sockets hold at most 107 characters, hence `short` beside `root`."""

    name: str
    root: Path
    short: Path

    @classmethod
    def of(cls, name: str) -> ServicePaths:
        """Paths of the service called `name`.

        Raises:
            ValueError: the name is no DNS label of at most 47 characters.
        """
        if not _NAME.match(name):
            raise ValueError(f"metadata.name: {name!r} is not a lower-case DNS label of at most 47 characters")
        root = state_root() / name
        digest = hashlib.sha256(str(root).encode()).hexdigest()[:8]
        return cls(name, root, Path(tempfile.gettempdir()) / f"ts-{os.getuid()}-{digest}")

    @property
    def marker(self) -> str:
        """What every process of the service carries in its environment as TIERSERVE_INSTANCE."""
        return f"{self.name}@{self.short.name}"

    @property
    def state(self) -> Path:
        """Ports and process ids, for the next supervisor."""
        return self.root / "state.json"

    @property
    def status(self) -> Path:
        """The status that the supervisor last wrote."""
        return self.root / "status.json"

    @property
    def logs(self) -> Path:
        """A log file per process."""
        return self.root / "logs"

    @property
    def haproxy_config(self) -> Path:
        """The rendered gateway configuration."""
        return self.root / "haproxy.cfg"

    @property
    def agent_config(self) -> Path:
        """The gateway agent's configuration."""
        return self.root / "agent.json"

    @property
    def admin_socket(self) -> Path:
        """HAProxy's admin socket."""
        return self.short / "gw.sock"

    @property
    def prefork_socket(self) -> Path:
        """Where Ray's workers are handed over to be forked."""
        return self.short / "prefork.sock"

    @property
    def ray_token(self) -> Path:
        """What Ray asks of everybody who speaks to the cluster; readable by this user alone."""
        return self.root / "ray.token"

    @property
    def ray(self) -> Path:
        """Ray's session folder."""
        return self.short / "r"

    def make(self) -> None:
        """Create the folders, readable by this user alone."""
        for folder in (self.root, self.logs, self.short, self.ray, self.short / "h"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.ray_token.exists():
            self.ray_token.touch(mode=0o600)
            self.ray_token.write_text(secrets.token_hex(32))


def known_services() -> list[str]:
    """Names of the services that left a state folder."""
    root = state_root()
    return sorted(p.parent.name for p in root.glob("*/state.json")) if root.is_dir() else []
