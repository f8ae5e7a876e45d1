"""Files of a local service: a state folder per user and service, and one with a short path for Ray's sockets."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

_STATE_HINT = "set TIERSERVE_STATE to a writable folder"
_TEMPORARY_HINT = "set TMPDIR to a writable folder with a short path without spaces, e.g. /tmp"
# Characters that need no quotes in HAProxy's configuration and on Ray's command lines.
_PLAIN = re.compile(r"^[\w./+=@-]+$", re.ASCII)
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$")


# Ray's longest path under `ray`: /session_2026-11-29_01-36-10_123456_4194304/sockets/plasma_store.99
_LONGEST_SOCKET = 67
_SOCKET_BYTES = 107  # Linux: sizeof(sun_path) less the terminating zero


class LocalError(Exception):
    """A service cannot run on this machine; `hint` is what to change."""

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
        raise LocalError(f"state folder: user {os.getuid()} has no home folder", _STATE_HINT) from error


def _socket_base(name: str) -> Path:
    """The folder for sockets: $TMPDIR if Ray and HAProxy can use it (no spaces, short enough), else /tmp."""
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
        """Paths of the service `name`.

        Raises:
            LocalError: the name is not a DNS label of at most 47 characters, or it has no state folder.
        """
        if not _NAME.match(name):
            message = f"metadata.name: must be a lower-case DNS label of at most 47 characters (got {name!r})"
            raise LocalError(message, "list the running services: tierserve status")
        root = state_root() / name
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        short = f"ts-{os.getuid()}-{digest}"
        return cls(name, root, _socket_base(short) / short)

    @property
    def marker(self) -> str:
        """Value of TIERSERVE_INSTANCE in the environment of every process of the service."""
        return f"{self.name}@{self.short.name}"

    @property
    def state(self) -> Path:
        """Ports and process ids, for the next supervisor."""
        return self.root / "state.json"

    @property
    def status(self) -> Path:
        """The last status, written by the supervisor."""
        return self.root / "status.json"

    @property
    def logs(self) -> Path:
        """Folder with one log file per process."""
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
        """Socket of the process from which Ray's workers are forked."""
        return self.short / "prefork.sock"

    @property
    def ray_token(self) -> Path:
        """Ray's authentication token, readable by this user only."""
        return self.root / "ray.token"

    @property
    def ray(self) -> Path:
        """Ray's session folder."""
        return self.short / "r"

    @property
    def piped_file(self) -> Path:
        """Copy of a service file that was read from a pipe, so that the supervisor can follow it."""
        return self.root / "service.yaml"

    def make(self) -> None:
        """Create the folders, accessible by this user only.

        Raises:
            LocalError: one cannot be created or written, or belongs to another user.
        """
        self._make((self.root, self.logs), "state folder", _STATE_HINT)
        self._make((self.short, self.ray, self.short / "h"), "temporary folder", _TEMPORARY_HINT)
        if not self.ray_token.exists():
            self.ray_token.touch(mode=0o600)
            self.ray_token.write_text(secrets.token_hex(32))

    def _make(self, folders: tuple[Path, ...], label: str, hint: str) -> None:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_uid != os.getuid():  # in /tmp another user may have created it first
                    raise LocalError(f"{label} {folder}: belongs to another user", hint)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise LocalError(f"{label} {folder}: {error.strerror or error}", hint) from error


def known_services() -> list[str]:
    """Names of the services with a state folder; raises LocalError if the folder cannot be read."""
    root = state_root()
    try:
        return sorted(p.parent.name for p in root.glob("*/state.json")) if root.is_dir() else []
    except OSError as error:
        raise LocalError(f"state folder {root}: {error.strerror}", _STATE_HINT) from error
