"""`s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX`, or the path of one GGUF file there.

Credentials are those of the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL,
AWS_SKIP_SIGNATURE, web identity and instance metadata; GOOGLE_SERVICE_ACCOUNT_KEY, GOOGLE_SERVICE_ACCOUNT (a file),
workload identity.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tierserve_serving.sources.errors import SourceError, TransferError
from tierserve_serving.sources.remote import RemoteFile, Snapshot, Want, choose

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK = 4 << 20


def check(source: str) -> None:
    """Raise SourceError unless the source names a bucket and a path."""
    parts = urlsplit(source)
    if not parts.netloc or not parts.path.strip("/"):
        raise SourceError(
            f"must be {parts.scheme}://BUCKET/PATH ({source!r})", "InvalidSource", "add the bucket and the path in it"
        )


def snapshot(source: str, want: Want) -> Snapshot:
    """List the objects that the engine needs.

    Raises:
        SourceError: no access, no such bucket or path, or Unreachable.
    """
    import obstore

    check(source)
    parts = urlsplit(source)
    path = unquote(parts.path).strip("/")
    store = _store(parts.scheme, parts.netloc)
    is_file = path.endswith(".gguf")
    prefix = path.rpartition("/")[0] if is_file else path
    with _errors_named(source):
        found = [meta for page in obstore.list(store, prefix=prefix or None) for meta in page]
    start = len(prefix) + 1 if prefix else 0
    objects = {str(meta["path"])[start:]: meta for meta in found if meta["size"] > 0}
    if not objects:
        raise SourceError(f"{source} has no files", "FileNotFound", "check bucket and path")
    names, entry = choose(list(objects), want, path.rpartition("/")[2] if is_file else None, source)
    tags = hashlib.sha256()
    files = []
    for name in names:
        meta = objects[name]
        tags.update(f"{name}\0{meta['size']}\0{meta.get('e_tag')}\n".encode())
        files.append(RemoteFile(name, int(meta["size"]), None, partial(_read, source, store, str(meta["path"]))))
    return Snapshot(tags.hexdigest(), tuple(files), entry)


def _store(scheme: str, bucket: str) -> ObjectStore:
    from obstore.store import GCSStore, S3Store

    if scheme == "gs":
        return GCSStore(bucket)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    # Servers inside a cluster (MinIO, Ceph) often have no TLS.
    return S3Store(bucket, client_options={"allow_http": endpoint.startswith("http://")})


@contextmanager
def _read(source: str, store: ObjectStore, path: str, offset: int) -> Iterator[Iterator[bytes]]:
    import obstore

    options: Any = {"range": {"offset": offset}} if offset else None
    with _errors_named(source, is_transfer=True):
        yield (bytes(chunk) for chunk in obstore.get(store, path, options=options).stream(min_chunk_size=_CHUNK))


@contextmanager
def _errors_named(source: str, *, is_transfer: bool = False) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except exceptions.NotFoundError:
        raise SourceError(f"{source} is not found", "FileNotFound", "check bucket and path") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise SourceError(
            f"no access to {source}: {error}".splitlines()[0][:300],
            "AccessDenied",
            "set credentials that may list and read it, on Kubernetes with models[].sourceSecretName or a "
            "ServiceAccount in podTemplate",
        ) from None
    except exceptions.BaseError as error:
        if "NoSuchBucket" in str(error):
            raise SourceError(f"{source}: there is no such bucket", "FileNotFound", "check bucket and path") from None
        if is_transfer:
            raise TransferError(str(error)) from error
        raise SourceError(
            f"{source} cannot be listed: {error}".splitlines()[0][:300],
            "Unreachable",
            "check the network, AWS_ENDPOINT_URL and AWS_REGION",
        ) from error
