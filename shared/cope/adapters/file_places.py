"""From the settings to the file store that they name."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from cope.adapters.local_files import LocalFiles
from cope.core.errors import Misconfigured
from cope.ports.files import FileStore


def open_files(url: str, data_dir: Path) -> FileStore:
    """`data_dir` where `url` is empty; else ``file:///path``, ``s3://bucket/prefix`` or, for tests in one process,
    ``memory://name``. Raises `Misconfigured` for anything else, and where the extra is not installed."""
    if not url:
        return LocalFiles(data_dir)
    parts = urlsplit(url)
    place = f"{parts.netloc}{unquote(parts.path)}".rstrip("/")
    if parts.query or parts.fragment or parts.username is not None:
        raise Misconfigured("COPE_FILES_URL takes no user, `?` or `#`: keys and endpoint are AWS_… settings.")
    match parts.scheme:
        case "file" if not parts.netloc and parts.path.startswith("/") and len(parts.path) > 1:
            return LocalFiles(Path(unquote(parts.path)))
        case "s3" if parts.netloc:
            return _s3(place)
        case "memory" if place:
            return _memory(place)
        case _:
            raise Misconfigured(
                f"COPE_FILES_URL can't be {url!r}: it is s3://bucket/prefix, file:///an/absolute/path, or empty for "
                "COPE_DATA_DIR."
            )


def _s3(place: str) -> FileStore:
    from cope.adapters.s3_files import S3Files

    try:
        return S3Files.under(place)
    except ImportError as missing:
        raise _needs_extra("s3://") from missing


def _memory(place: str) -> FileStore:
    from cope.adapters.fsspec_files import FsspecFiles

    try:
        from fsspec.implementations.memory import MemoryFileSystem
    except ImportError as missing:
        raise _needs_extra("memory://") from missing
    return FsspecFiles(MemoryFileSystem(), f"/{place}")


def _needs_extra(scheme: str) -> Misconfigured:
    return Misconfigured(
        f"COPE_FILES_URL: {scheme} needs the extra `s3`: pip install 'cope-service[s3]', or build the image with "
        "--build-arg LOCK=requirements-s3.lock."
    )
