"""Files in S3, or what speaks its protocol. Needs the extra ``[s3]``.

Keys, region and endpoint are the AWS SDK's own settings (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL``, profiles, instance roles): none of them is ours to keep.
"""

import contextlib
from datetime import datetime
from typing import Any

from cope.adapters.fsspec_files import PART_BYTES, Draft, FsspecFiles, in_thread


class S3Files(FsspecFiles):
    """The file store under ``bucket/prefix``."""

    @classmethod
    def under(cls, place: str) -> "S3Files":
        """`place` is ``bucket/prefix``. Raises `ImportError` without the extra."""
        import s3fs

        # A listing of a minute ago would show files that are gone, and hide ones that another process has written.
        fs = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        return cls(fs, place)

    def _begin(self, path: str) -> Draft:
        return _Upload(self._fs.open(path, "wb", block_size=PART_BYTES, autocommit=False))

    async def drop_unfinished(self, *, before: datetime) -> int:
        """Parts of uploads that were never completed, which are paid for and shown nowhere."""
        return await in_thread(lambda: self._drop_uploads(before))

    def _drop_uploads(self, before: datetime) -> int:
        bucket, _, prefix = self._root.partition("/")
        dropped, more, markers = 0, True, dict[str, str]()
        while more:
            page: dict[str, Any] = self._fs.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **markers
            )
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before:
                    with contextlib.suppress(FileNotFoundError):
                        self._fs.call_s3(
                            "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                    dropped += 1
            more = bool(page.get("IsTruncated"))
            markers = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
        return dropped


class _Upload:
    """An upload in parts: nobody sees it before it is completed, then all see all of it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> object:
        return self._file.write(data)

    def finish(self) -> None:
        self._file.close()
        self._file.commit()

    def abandon(self) -> None:
        self._file.closed = True  # closing would send the rest first
        with contextlib.suppress(FileNotFoundError):  # upkeep thought that its writer had died
            self._file.discard()
