"""What a file is, by its first bytes: asked where its name does not tell."""

from __future__ import annotations

import io
import re
import zipfile

_HTML = re.compile(
    rb"(?:<!--.*?-->|<\?xml[^>]*>|\s)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_MAIL_FIELDS = (b"\nfrom:", b"\nreceived:", b"\nmessage-id:", b"\nreturn-path:", b"\ndate:")
_SHELLS = {b"python": ".py", b"node": ".js", b"ruby": ".rb", b"perl": ".pl", b"php": ".php"}
_MEMBERS = {
    "word/document.xml": ".docx",
    "ppt/presentation.xml": ".pptx",
    "xl/workbook.xml": ".xlsx",
}
_MIME = {
    b"application/epub+zip": ".epub",
    b"application/vnd.oasis.opendocument.spreadsheet": ".ods",
}


def suffix_by_bytes(data: bytes, has_suffix: bool) -> str | None:
    """Returns the suffix that files of this kind have, or None when the bytes do not tell.

    Args:
        data: The bytes of the file.
        has_suffix: Whether its name has a suffix. A text without one (`NOTES`) counts as text; one
            with a suffix that nobody knows does not.
    """
    head = data[:1024]
    if b"%PDF-" in head:
        return ".pdf"
    if head.startswith(b"PK\x03\x04"):
        return _in_archive(data)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return ".xls" if "Workbook".encode("utf-16-le") in data else None
    if _HTML.match(data[:4096]):
        return ".html"
    if head.startswith(b"#!"):
        interpreter = head.split(b"\n", 1)[0]
        return next((end for name, end in _SHELLS.items() if name in interpreter), ".sh")
    if _is_mail(head):
        return ".eml"
    return None if has_suffix or not head or _is_binary(data[:65536]) else ".txt"


def _in_archive(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:
                return _MIME.get(archive.read("mimetype").strip())
    except Exception:  # whatever a broken archive makes the library raise, it tells no kind
        return None
    return next((suffix for name, suffix in _MEMBERS.items() if name in names), None)


def _is_mail(head: bytes) -> bool:
    lowered = b"\n" + head.replace(b"\r\n", b"\n").lower()
    fields = sum(field in lowered for field in _MAIL_FIELDS)
    return fields >= 2 and re.match(rb"\n(?:from |[a-z0-9-]+:)", lowered) is not None


def _is_binary(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    return re.search(rb"[\x00-\x06\x0e-\x1a]", head) is not None
