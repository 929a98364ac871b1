"""Forms that are none, lie, or never end: a 4xx of the error shape, no row, and no byte left in the file store."""

import socket
import time

import pytest

from tests.attacks.place import Attacked

pytestmark = pytest.mark.integration

PURPOSE = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--b\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{}\n\r\n'
END = b"--b--\r\n"


def part(name: bytes, value: bytes = b"x") -> bytes:
    return b'--b\r\ncontent-disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"


FORMS: dict[str, bytes] = {
    "nothing": b"",
    "garbage": bytes(range(256)) * 8,
    "another boundary": (PURPOSE + FILE + END).replace(b"--b", b"--c"),
    "no end": PURPOSE + FILE,
    "an end at once": END,
    "cut in a header": PURPOSE + FILE[:30],
    "cut in the boundary": PURPOSE + FILE + b"--",
    "no file": PURPOSE + END,
    "no purpose": FILE + END,
    "an unknown purpose": PURPOSE.replace(b"batch", b"assist") + FILE + END,
    "two purposes": PURPOSE + PURPOSE + FILE + END,
    "a purpose in two halves": PURPOSE.replace(b"batch", b"bat") + PURPOSE.replace(b"batch", b"ch") + FILE + END,
    "two files": PURPOSE + FILE + FILE + END,
    "no name": b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n" + END,
    "no disposition": b"--b\r\n\r\nx\r\n" + END,
    "a header without a colon": b"--b\r\ncontent-disposition\r\n\r\nx\r\n" + END,
    "a header's name that is too long": b"--b\r\n" + b"x" * 70_000 + b": y\r\n\r\nx\r\n" + END,
    "a header's value that is too long": b"--b\r\nx: " + b"y" * 70_000 + b"\r\n\r\nx\r\n" + END,
    "headers without end": b"--b\r\n" + b"x: y\r\n" * 10_000 + b"\r\nx\r\n" + END,
    "NUL in a header": b'--b\r\ncontent-disposition: form-data; name="fi\x00le"\r\n\r\nx\r\n' + END,
    "a field that is too long": PURPOSE + FILE + part(b"note", b"x" * 70_000) + END,
    "very many parts": b"".join(part(b"f%d" % number) for number in range(5000)) + PURPOSE + FILE + END,
    "many parts of one name": part(b"f") * 5000 + PURPOSE + FILE + END,
    "an expiry that is no number": PURPOSE + part(b"expires_after[seconds]", "٣٦٠٠".encode()) + FILE + END,
    "an expiry with an exponent": PURPOSE + part(b"expires_after[seconds]", b"1e9") + FILE + END,
    "an expiry of ages": PURPOSE + part(b"expires_after[seconds]", b"9" * 300) + FILE + END,
    "an anchor alone": PURPOSE + part(b"expires_after[anchor]", b"created_at") + FILE + END,
    "too many bytes": PURPOSE + FILE.replace(b"{}\n", b"{}\n" * 100_000) + END,
    "too many lines": PURPOSE + FILE.replace(b"{}\n", b"\n" * 1001) + END,
    "too long a line": PURPOSE + FILE.replace(b"{}\n", b"x" * 10_001) + END,
    "an epilogue without end": PURPOSE + FILE + END + b"x" * 300_000,
    "a preamble without end": b"x" * 300_000 + PURPOSE + FILE + END,
}
KINDS: dict[str, str] = {
    "no boundary": "multipart/form-data",
    "an empty boundary": "multipart/form-data; boundary=",
    "a boundary that is too long": "multipart/form-data; boundary=" + "b" * 5000,
    "a boundary of another alphabet": "multipart/form-data; boundary=\xe9\xff",
    "JSON": "application/json",
    "another multipart": "multipart/mixed; boundary=b",
    "url-encoded": "application/x-www-form-urlencoded",
    "nothing": "",
    "semicolons": ";;;;" * 1000,
}


@pytest.mark.parametrize("about", sorted(FORMS))
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_a_form_that_is_none_leaves_nothing(attacked: Attacked, about: str, chunked: bool) -> None:
    before = attacked.rows(), attacked.stored_files()
    form = FORMS[about]
    headers = [("content-type", "multipart/form-data; boundary=b")]
    if chunked:
        headers.append(("transfer-encoding", "chunked"))
        pieces = [form[at : at + 777] for at in range(0, len(form), 777)]
        form = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    attacked.send("POST", "/v1/files", form, key=attacked.victim.key, headers=headers).refused(400, 413)

    assert (attacked.rows(), attacked.stored_files()) == before


@pytest.mark.parametrize("about", sorted(KINDS))
def test_another_kind_of_body_is_refused(attacked: Attacked, about: str) -> None:
    before = attacked.rows(), attacked.stored_files()
    headers = [("content-type", KINDS[about])]

    attacked.send("POST", "/v1/files", PURPOSE + FILE + END, key=attacked.victim.key, headers=headers).refused(400)

    assert (attacked.rows(), attacked.stored_files()) == before


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\windows\\\\a.jsonl", "a.jsonl"),
        (b"a\x1b[2Jb", "a\\x1b[2Jb"),
        (b"a\x00b", "ab"),
        (b"x" * 3000, "x" * 255),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"..", ".."),
        (b"/", "upload.jsonl"),
        (b"=cmd|x", "=cmd|x"),
    ],
)
def test_a_files_name_is_a_label_and_nothing_else(attacked: Attacked, told: bytes, kept: str) -> None:
    form = PURPOSE + FILE.replace(b"in.jsonl", told) + END
    kind = [("content-type", "multipart/form-data; boundary=b")]

    made = attacked.send("POST", "/v1/files", form, key=attacked.victim.key, headers=kind)

    assert made.status == 200, made.body
    assert made.json["filename"] == kept
    got = attacked.send("GET", f"/v1/files/{made.json['id']}/content", key=attacked.victim.key)
    assert got.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert got.headers["content-disposition"].isascii()
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert attacked.send("DELETE", f"/v1/files/{made.json['id']}", key=attacked.victim.key).status == 200


def _head(attacked: Attacked, length: bytes) -> bytes:
    return (
        b"POST /v1/files HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + attacked.victim.key.encode()
        + b"\r\ncontent-type: multipart/form-data; boundary=b\r\n" + length + b"\r\n\r\n"
    )  # fmt: skip


@pytest.mark.parametrize("length", [b"content-length: 1000", b"transfer-encoding: chunked"])
def test_a_body_that_stops_coming_is_given_up(attacked: Attacked, length: bytes) -> None:
    before = attacked.rows(), attacked.stored_files()
    begun = PURPOSE + FILE[:-10]
    if b"chunked" in length:
        begun = b"%x\r\n%b\r\n" % (len(begun), begun)

    answer = attacked.raw(_head(attacked, length) + begun)

    assert answer.refused(408)["code"] == "body_stalled"
    assert answer.headers["connection"] == "close"
    assert (attacked.rows(), attacked.stored_files()) == before


@pytest.mark.parametrize("length", [b"content-length: 1000", b"transfer-encoding: chunked"])
def test_a_caller_who_goes_away_in_the_middle_leaves_nothing(attacked: Attacked, length: bytes) -> None:
    before, said = (attacked.rows(), attacked.stored_files()), len(attacked.log.getvalue())
    with socket.create_connection(("127.0.0.1", attacked.port)) as connection:
        connection.sendall(_head(attacked, length) + (b"" if b"chunked" in length else PURPOSE))

    deadline = time.monotonic() + 5
    while (attacked.rows(), attacked.stored_files()) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (attacked.rows(), attacked.stored_files()) == before
    assert "Traceback" not in attacked.log.getvalue()[said:]


@pytest.mark.parametrize(
    "length",
    [
        b"content-length: 10\r\ncontent-length: 20",
        b"content-length: 10\r\ntransfer-encoding: chunked",
        b"content-length: -1",
        b"content-length: 0x10",
        b"content-length: \xb2",
        b"content-length: 1e3",
        b"content-length: " + b"9" * 400,
        b"transfer-encoding: gzip",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked, identity",
    ],
)
def test_a_length_that_is_none_or_two_is_refused(attacked: Attacked, length: bytes) -> None:
    before = attacked.rows(), attacked.stored_files()

    answer = attacked.raw(_head(attacked, length) + b"0\r\n\r\n")

    # What is no HTTP at all is refused by the server itself, in plain text and before it is a request.
    assert answer.status in {400, 413, 501}, answer.body
    assert (attacked.rows(), attacked.stored_files()) == before


def test_a_length_that_is_too_short_leaves_the_rest_to_no_other_request(attacked: Attacked) -> None:
    smuggled = b"DELETE /v1/files/" + attacked.victim.ids["file_id"].encode() + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    before = attacked.rows(), attacked.stored_files()

    attacked.raw(_head(attacked, b"content-length: 5") + b"--b\r\n" + smuggled).refused(400)

    assert (attacked.rows(), attacked.stored_files()) == before
