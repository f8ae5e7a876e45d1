"""`hf://ORG/MODEL[@REVISION][/FILE]`: the Hugging Face Hub, or a mirror of it (HF_ENDPOINT).

The token is HF_TOKEN, or the one that `hf auth login` stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit

from tierserve_serving.sources.errors import SourceError, TransferError
from tierserve_serving.sources.remote import RemoteFile, Snapshot, Want, choose

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub at a revision."""

    name: str
    revision: str
    file: str | None


def parse(source: str) -> Repository:
    """The parts of the source; SourceError if it has no organisation or no model."""
    parts = urlsplit(source)
    model, _, file = parts.path.removeprefix("/").partition("/")
    model, _, revision = model.partition("@")
    if not parts.netloc or not model:
        raise SourceError(
            f"must be hf://ORG/MODEL, optionally with @REVISION and /FILE ({source!r})",
            "InvalidSource",
            "write it as in hf://Qwen/Qwen2.5-0.5B-Instruct-GGUF@main/qwen2.5-0.5b-instruct-q4_k_m.gguf",
        )
    return Repository(f"{parts.netloc}/{model}", unquote(revision) or "main", unquote(file) or None)


def snapshot(source: str, want: Want) -> Snapshot:
    """List the files of the repository that the engine needs.

    Raises:
        SourceError: with the reason of the hub, or Unreachable.
    """
    from huggingface_hub import HfApi

    repository, token = parse(source), _token()
    api = HfApi(endpoint=_endpoint(), token=token or False)
    with _errors_named(source, repository):
        info = api.model_info(repository.name, revision=repository.revision, files_metadata=True, timeout=_TIMEOUT_S)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names, entry = choose(list(siblings), want, repository.file, source)
    commit = info.sha or repository.revision
    files = []
    for name in names:
        sibling = siblings[name]
        checksum = sibling.lfs.sha256 if sibling.lfs else None
        read = partial(_read, source, Repository(repository.name, commit, None), name)
        files.append(RemoteFile(name, sibling.size or 0, checksum, read))
    return Snapshot(commit, tuple(files), entry)


@contextmanager
def _read(source: str, repository: Repository, name: str, offset: int) -> Iterator[Iterator[bytes]]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository.name, name, revision=repository.revision, endpoint=_endpoint())
    headers = build_hf_headers(token=_token() or False) | {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with (
        _errors_named(source, repository, is_transfer=True),
        get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_S) as response,
    ):
        hf_raise_for_status(response)
        if offset and response.status_code != 206:
            raise TransferError("the server does not continue a download")
        # As received: chunks of a fixed size would lose what came of the last one before a connection ended.
        yield response.iter_raw()


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | None:
    from huggingface_hub import get_token

    return os.environ.get("HF_TOKEN") or get_token()


@contextmanager
def _errors_named(source: str, repository: Repository, *, is_transfer: bool = False) -> Iterator[None]:
    import httpx2  # the HTTP client of huggingface_hub
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise _gated(source, repository) from None
    except errors.RevisionNotFoundError:
        raise SourceError(
            f"{repository.name} has no revision {repository.revision!r}",
            "RevisionNotFound",
            "use a branch, tag or commit that the page of the repository lists",
        ) from None
    except errors.RepositoryNotFoundError:
        hint = "check the name" + ("" if _token() else "; if it is private, set HF_TOKEN (models[].sourceSecretName)")
        raise SourceError(f"{repository.name} is not a repository of the hub", "RepositoryNotFound", hint) from None
    except errors.RemoteEntryNotFoundError:
        raise SourceError(f"{source}: a file is gone from the hub", "FileNotFound", "use another revision") from None
    except (errors.HfHubHTTPError, httpx2.HTTPError, ConnectionError) as error:
        code = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
        if code in (401, 403):
            raise SourceError(
                f"the hub refuses the token for {repository.name} (status {code})",
                "AccessDenied",
                "set HF_TOKEN to a valid token with read access",
            ) from None
        if is_transfer:
            raise TransferError(f"{type(error).__name__}: {error}") from error
        raise SourceError(
            f"the hub is not reachable: {type(error).__name__}: {error}".splitlines()[0][:300],
            "Unreachable",
            "check the network, HTTPS_PROXY and HF_ENDPOINT; with HF_HUB_OFFLINE=1 only the cache is used",
        ) from error


def _gated(source: str, repository: Repository) -> SourceError:
    if _token() is None:
        return SourceError(
            f"{repository.name} is gated, and there is no token",
            "TokenRequired",
            "set HF_TOKEN, on Kubernetes with models[].sourceSecretName",
        )
    return SourceError(
        f"{repository.name} is gated, and the token has no access to it",
        "AccessDenied",
        "accept the conditions on the page of the repository with the account of the token",
    )
