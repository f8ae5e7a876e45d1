"""Create the virtual environment from the lock files, with Python's standard library only.

Used by the Makefile: `python3 scripts/setup.py runtime|dev|bench|vllm|docs|lock`. Does nothing when the environment is
already what the lock says. Downloads are kept by uv in its cache in your home.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
EXTRAS = {
    "runtime": ("serving",),
    "dev": ("serving", "operator", "simulate", "dev"),
    "bench": ("serving", "operator", "simulate", "dev", "bench"),
}
APART = {"vllm": ("serving", "operator", "simulate", "dev", "vllm"), "docs": ("docs",)}
"""Kinds with an environment of their own."""
IMAGES = {"operator": ("operator",), "vllm-gpu": ("serving", "vllm-gpu")}
"""Kinds that only images use; the serving image uses runtime or vllm-gpu."""
DOWNLOAD = {"vllm": "3 GB", "docs": "60 MB"}
"""What the first installation of a kind downloads, where it is not about 400 MB."""
MIN_PYTHON = (3, 11)


def fail(message: str, hint: str) -> None:
    sys.exit(f"setup: {message}\n    {hint}")


def check_python() -> None:
    if sys.version_info < MIN_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        fail(f"this is Python {found}; TierServe needs 3.11 or newer", "run: make PYTHON=python3.12 demo")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("Python's venv module is missing", "on Debian and Ubuntu: apt install python3-venv")


def fingerprint(kind: str) -> str:
    lock = (REQUIREMENTS / f"{kind}.lock").read_bytes()
    return hashlib.sha256(lock + (ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()


def is_ready(venv_dir: Path, kind: str) -> bool:
    """Whether the environment is up to date: bench includes dev, and dev includes runtime."""
    kinds = list(EXTRAS)
    including = [kind] if kind in APART else kinds[kinds.index(kind) :]
    stamps = {k: venv_dir / f".tierserve-{k}" for k in including}
    return any(stamp.exists() and stamp.read_text() == fingerprint(k) for k, stamp in stamps.items())


def run(*command: str | Path) -> None:
    result = subprocess.run([str(c) for c in command], cwd=ROOT, check=False)
    if result.returncode:
        fail(
            f"`{' '.join(str(c) for c in command[:4])} ...` ended with {result.returncode}",
            "read the lines above; a registry out of reach is the usual cause. `make clean` starts afresh",
        )


def uv(venv_dir: Path) -> list[str | Path]:
    """The installer in the environment, which the first call creates."""
    python = venv_dir / "bin" / "python"
    if not python.exists():
        print(f"setup: new environment in {venv_dir.name}", flush=True)
        shutil.rmtree(venv_dir, ignore_errors=True)
        run(sys.executable, "-m", "venv", venv_dir)
        run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS / "uv.lock")
    return [venv_dir / "bin" / "uv"]


def install(venv_dir: Path, kind: str) -> None:
    if is_ready(venv_dir, kind):
        return
    start = time.monotonic()
    tool = uv(venv_dir)
    size = DOWNLOAD.get(kind, "400 MB")
    print(f"setup: packages of requirements/{kind}.lock (the first time downloads about {size}) ...", flush=True)
    python = venv_dir / "bin" / "python"
    lock = REQUIREMENTS / f"{kind}.lock"
    run(*tool, "pip", "install", "-q", "--python", python, "--require-hashes", "--no-deps", "-r", lock)
    run(*tool, "pip", "install", "-q", "--python", python, "--no-deps", "--no-build-isolation", "-e", ".")
    (venv_dir / f".tierserve-{kind}").write_text(fingerprint(kind))
    print(f"setup: ready after {time.monotonic() - start:.0f} s", flush=True)


def get_browser() -> None:
    """Install Chromium for the browser tests from the distribution's packages, if permitted."""
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print("setup: no Chromium: the browser tests will be skipped. On Debian: sudo apt install chromium", flush=True)
        return
    print("setup: Chromium from the distribution's packages ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "chromium"]):
        if subprocess.run(["apt-get", *words], check=False, stdout=subprocess.DEVNULL, env=environment).returncode:
            print("setup: apt-get failed: the browser tests will be skipped", flush=True)
            return


def lock_all(venv_dir: Path) -> None:
    tool = uv(venv_dir)
    common = (*tool, "pip", "compile", "-q", "--generate-hashes", "--no-emit-index-url", "--universal",
              "--python-version", "3.11", "--no-header", "--custom-compile-command", "make lock")  # fmt: skip
    for kind, extras in {**EXTRAS, **APART, **IMAGES}.items():
        flags = [flag for extra in extras for flag in ("--extra", extra)]
        run(*common, *flags, "pyproject.toml", REQUIREMENTS / "build.in", "-o", REQUIREMENTS / f"{kind}.lock")
        print(f"setup: wrote requirements/{kind}.lock", flush=True)
    run(*common, REQUIREMENTS / "uv.in", "-o", REQUIREMENTS / "uv.lock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=[*EXTRAS, *APART, "lock"])
    parser.add_argument("--browser", action="store_true", help="also get Chromium for the browser tests")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    arguments = parser.parse_args()
    check_python()
    venv_dir = arguments.venv.absolute()
    if arguments.kind == "lock":
        lock_all(venv_dir)
    else:
        install(venv_dir, arguments.kind)
    if arguments.browser:
        get_browser()


if __name__ == "__main__":
    main()
