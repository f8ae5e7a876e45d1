"""Sources on this machine: `file://`, `pypi://` (a file in an installed wheel) and `pvc://` (a mounted volume)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tierserve_serving.sources.errors import SourceError
from tierserve_serving.sources.remote import Want, choose

CLAIMS = Path("/mnt/tierserve/claims")
"""Where the operator mounts the volumes of `pvc://CLAIM/PATH`, each in a folder with the name of the claim."""


IMAGE = Path("/mnt/tierserve/image")
"""Where the operator mounts the image volume of the source that is in TIERSERVE_MODEL_IMAGE."""


def in_image(source: str, want: Want, file: str | None) -> Path:
    """Return the file or folder of a model in an image volume. Raises `SourceError` if it is not there."""
    return _on_disk(IMAGE / file if file else IMAGE, want, source, "check what the image contains")


def path(source: str, want: Want) -> Path:
    """Return the file or folder. Raises `SourceError` if there is none."""
    parts = urlsplit(source)
    inside = unquote(parts.path)
    if parts.scheme == "pypi":
        return _in_wheel(parts.netloc, inside, want)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise SourceError(
                f"must not have a host ({parts.netloc!r})", "InvalidSource", "write file:///absolute/path.gguf"
            )
        return _on_disk(Path(inside), want, source, "mount or copy the model there")
    folder = CLAIMS / parts.netloc
    if not folder.is_dir():
        raise SourceError(
            f"{source}: no volume is mounted at {folder}",
            "FileNotFound",
            "pvc:// is for Kubernetes; on one machine use file:///PATH",
        )
    return _on_disk(folder / inside.strip("/"), want, source, f"check the path in the volume {parts.netloc}")


def _on_disk(file: Path, want: Want, source: str, hint: str) -> Path:
    if want == "gguf" and file.is_file():
        return file
    if file.is_dir():
        names = [str(path.relative_to(file)) for path in sorted(file.rglob("*")) if path.is_file()]
        _, entry = choose(names, want, None, source)
        return file / entry if entry else file
    if file.is_file():
        raise SourceError(f"{source} is a file, and this engine loads a folder", "InvalidSource", "name its folder")
    raise SourceError(f"file not found ({file})", "FileNotFound", hint)


def _in_wheel(wheel: str, inside: str, want: Want) -> Path:
    if want != "gguf":
        raise SourceError("pypi:// has GGUF files only", "NotSupported", "use hf://, file:// or engine llamacpp")
    # The metadata are enough: importing the package would require the plug-in host that it is made for.
    try:
        files = metadata.distribution(wheel).files or []
    except metadata.PackageNotFoundError:
        raise SourceError(f"the wheel {wheel!r} is not installed", "PackageNotFound", f"pip install {wheel}") from None
    suffix = inside.strip("/")
    matches = [file for file in files if file.suffix == ".gguf" and (not suffix or str(file).endswith(suffix))]
    if len(matches) != 1:
        names = ", ".join(str(file) for file in matches) or "none"
        raise SourceError(
            f"must match one GGUF file of {wheel} (matches: {names})", "AmbiguousFile", "append /FILE to choose one"
        )
    return Path(str(matches[0].locate()))
