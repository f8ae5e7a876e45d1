"""Where a model's file is. Nothing is downloaded at the start: a tier cut off from the network still serves."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

SUPPORTED = "pypi://WHEEL (a GGUF file inside an installed wheel) and file:///PATH.gguf"
_KNOWN_LATER = ("hf", "oci", "pvc")


class SourceError(ValueError):
    """The source cannot be used; the message starts with the field's name and ends with the hint."""


def check_source(source: str) -> None:
    """Raise `SourceError` unless the scheme is one that this version reads. Touches no file."""
    scheme = urlsplit(source).scheme
    if scheme in ("pypi", "file"):
        return
    if scheme in _KNOWN_LATER:
        raise SourceError(f"source: {scheme}:// is not fetched by this version; it reads {SUPPORTED}")
    raise SourceError(f"source: {source!r} is no model source; this version reads {SUPPORTED}")


def model_path(source: str) -> Path:
    """Return the GGUF file that `source` names. Raises `SourceError` if there is none."""
    check_source(source)
    parts = urlsplit(source)
    path = unquote(parts.path)
    return _in_wheel(parts.netloc, path) if parts.scheme == "pypi" else _on_disk(parts.netloc, path)


def _on_disk(host: str, path: str) -> Path:
    if host not in ("", "localhost"):
        raise SourceError(f"source: file://{host}{path} names the host {host!r}; write file:///absolute/path.gguf")
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"source: there is no file {file}; mount or copy the model there")
    return file


def _in_wheel(wheel: str, inside: str) -> Path:
    # The metadata are enough: importing the package would want the plug-in host it is made for.
    try:
        files = metadata.distribution(wheel).files or []
    except metadata.PackageNotFoundError:
        raise SourceError(f"source: the wheel {wheel!r} is not installed; pip install {wheel}") from None
    wanted = inside.strip("/")
    found = [file for file in files if file.suffix == ".gguf" and (not wanted or str(file).endswith(wanted))]
    if len(found) != 1:
        names = ", ".join(str(file) for file in found) or "none"
        raise SourceError(f"source: {wheel} must hold one GGUF file of that name; found {names}; add /FILE to choose")
    return Path(str(found[0].locate()))
