"""Where one local service keeps its state: a folder per user and service, and a short one for Ray's sockets."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

_STATE_HINT = "set TIERSERVE_STATE to a folder that can be written"
_TEMPORARY_HINT = "set TMPDIR to a short path without blanks that can be written, e.g. /tmp"
# What stands in HAProxy's configuration and on Ray's command lines without quotes.
_PLAIN = re.compile(r"^[\w./+=@-]+$", re.ASCII)
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$")


# Ray's longest path under `ray`: /session_2026-11-29_01-36-10_123456_4194304/sockets/plasma_store.99
_LONGEST_SOCKET = 67
_SOCKET_BYTES = 107  # of Linux: sizeof(sun_path) without the zero at its end


class LocalError(Exception):
    """A service cannot run on this machine as it is; `hint` is what to change."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def state_root() -> Path:
    """The folder of all services: $TIERSERVE_STATE, $XDG_STATE_HOME/tierserve, or ~/.local/state/tierserve.

    Raises:
        LocalError: none of these is set, and the user has no home.
    """
    if explicit := os.environ.get("TIERSERVE_STATE"):
        return Path(explicit).absolute()
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base).absolute() / "tierserve"
    try:
        return Path.home().absolute() / ".local" / "state" / "tierserve"
    except RuntimeError as error:  # neither HOME nor an entry in /etc/passwd
        raise LocalError(f"state folder: user {os.getuid()} has no home", _STATE_HINT) from error


def _socket_base(name: str) -> Path:
    """The folder for sockets: $TMPDIR where Ray and HAProxy can use it (no blank, short enough), else /tmp."""
    try:
        chosen = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise LocalError(f"temporary folder: {error.strerror}", _TEMPORARY_HINT) from error
    longest = len(os.fsencode(chosen / name / "r")) + _LONGEST_SOCKET
    return chosen if longest <= _SOCKET_BYTES and _PLAIN.match(str(chosen)) else Path("/tmp")  # noqa: S108


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
            LocalError: the name is no DNS label of at most 47 characters, or there is no folder for it.
        """
        if not _NAME.match(name):
            message = f"metadata.name: {name!r} is not a lower-case DNS label of at most 47 characters"
            raise LocalError(message, "see the names that are up: tierserve status")
        root = state_root() / name
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        short = f"ts-{os.getuid()}-{digest}"
        return cls(name, root, _socket_base(short) / short)

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

    @property
    def piped_file(self) -> Path:
        """The service file where it came through a pipe, so that there is one to follow."""
        return self.root / "service.yaml"

    def make(self) -> None:
        """Create the folders, readable by this user alone.

        Raises:
            LocalError: one cannot be made or written, or belongs to another user.
        """
        self._make((self.root, self.logs), "state folder", _STATE_HINT)
        self._make((self.short, self.ray, self.short / "h"), "temporary folder", _TEMPORARY_HINT)
        if not self.ray_token.exists():
            self.ray_token.touch(mode=0o600)
            self.ray_token.write_text(secrets.token_hex(32))

    def _make(self, folders: tuple[Path, ...], what: str, hint: str) -> None:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_uid != os.getuid():  # in /tmp anybody may have made it first
                    raise LocalError(f"{what} {folder}: belongs to another user", hint)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise LocalError(f"{what} {folder}: {error.strerror or error}", hint) from error


def known_services() -> list[str]:
    """Names of the services that left a state folder; raises LocalError when there is no folder to look in."""
    root = state_root()
    try:
        return sorted(p.parent.name for p in root.glob("*/state.json")) if root.is_dir() else []
    except OSError as error:
        raise LocalError(f"state folder {root}: {error.strerror}", _STATE_HINT) from error
