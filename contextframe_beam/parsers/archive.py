"""Archives (DOCX, PPTX, XLSX, ODS, EPUB): opened within limits, before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
import zlib

from contextframe_beam.parsers.contract import MIB, Limits, ParseError, in_words

_MOST_MEMBERS = 20_000
# Text in XML shrinks to a tenth, tables to a fiftieth. Apache POI draws the same line:
# https://poi.apache.org/apidocs/dev/org/apache/poi/openxml4j/util/ZipSecureFile.html
_MOST_RATIO = 100
_SMALL = 10 * MIB
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Archive:
    """The members of a zip file, each within the limit of its unpacked size.

    Args:
        data: The bytes of the file.
        kind: What it should be, for messages, such as `a Word file (DOCX)`.
        limits: What it may unpack to.

    Raises:
        ParseError: it is not an archive, is protected by a password, or is too large unpacked.
    """

    def __init__(self, data: bytes, kind: str, limits: Limits) -> None:
        self._limits = limits
        if data.startswith(_OLD_OFFICE):
            if "EncryptedPackage".encode("utf-16-le") in data:
                raise ParseError("it is protected by a password; save it without one")
            raise ParseError(f"it is a file of an old Office, not {kind}; save it again as one")
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError):
            raise ParseError(f"it is not {kind}: no archive, or one that is cut off") from None
        members = self._file.infolist()
        if len(members) > _MOST_MEMBERS:
            raise ParseError(
                f"it is an archive of {len(members):,} files; {_MOST_MEMBERS:,} may be"
            )
        if any(one.flag_bits & 1 for one in members):
            raise ParseError("it is protected by a password; save it without one")
        self._check(sum(one.file_size for one in members), len(data))
        self.names = {one.filename: one for one in members}

    def _check(self, unpacked: int, packed: int) -> None:
        most = self._limits.max_unpacked_bytes
        if unpacked > most:
            raise ParseError(
                f"it unpacks to {in_words(unpacked)}, and max_unpacked_bytes is {in_words(most)}"
            )
        if unpacked > _SMALL and unpacked > _MOST_RATIO * packed:
            raise ParseError(
                f"it unpacks to {unpacked // packed:,} times its size ({in_words(unpacked)}), "
                "as archives do that are made to fill memory"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        """Returns the bytes of a member.

        Raises:
            ParseError: there is no member with that name, or it is damaged.
        """
        try:
            return self._file.read(self.names[name])
        except KeyError:
            raise ParseError(f"it is damaged: it lacks its part {name[:100]!r}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError):
            raise ParseError(f"it is damaged: its part {name[:100]!r} cannot be unpacked") from None

    def unpacked(self) -> bytes:
        """Returns the same archive without compression, for libraries that know no limits.

        Each member is read once, so that one which lies about its size cannot reach the library.

        Raises:
            ParseError: a member is damaged, or declares entities, as no Office file does.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
            for name, member in self.names.items():
                if member.is_dir():
                    continue
                part = self.read(name)
                if name.endswith((".xml", ".rels")) and b"<!DOCTYPE" in part[: 64 * 1024]:
                    raise ParseError("its XML declares entities, as no Office file does")
                target.writestr(zipfile.ZipInfo(name), part)
        return buffer.getvalue()
