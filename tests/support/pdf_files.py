"""Small PDFs, written by hand, with outline and metadata (ISO 32000-1)."""

from collections.abc import Mapping, Sequence


def pdf(
    pages: Sequence[str],
    outline: Sequence[tuple[str, int, int]] = (),
    info: Mapping[str, str] | None = None,
) -> bytes:
    """Returns a PDF.

    Args:
        pages: The text of each page.
        outline: Title, number of the page from 0, and level from 1 of each entry.
        info: What the file states, such as `Title`.
    """
    objects: dict[int, bytes] = {3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    first = 10
    kids = []
    for index, text in enumerate(pages):
        number = first + 2 * index
        kids.append(b"%d 0 R" % number)
        lines = [b"(%s) '" % _escaped(line) for line in text.split("\n") if line]
        stream = b"BT /F1 12 Tf 14 TL 50 700 Td " + b" ".join(lines) + b" ET"
        objects[number] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (number + 1)
        )
        objects[number + 1] = b"<< /Length %d >> stream\n%s\nendstream" % (len(stream), stream)
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    root = first + 2 * len(pages)
    objects |= _outline(outline, root, first)
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R %s >>" % (
        b"/Outlines %d 0 R" % root if outline else b""
    )
    pairs = [b"/%s (%s)" % (key.encode(), _escaped(value)) for key, value in (info or {}).items()]
    objects[4] = b"<< %s >>" % b" ".join(pairs)
    return _file(objects)


def _outline(entries: Sequence[tuple[str, int, int]], root: int, first: int) -> dict[int, bytes]:
    """Returns the objects of an outline: a tree of entries that know their neighbours."""
    parents, above = [], {0: root}
    for index, (_, _, level) in enumerate(entries):
        parents.append(above[level - 1])
        above[level] = root + 1 + index
    children: dict[int, list[int]] = {root: []}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(root + 1 + index)
    objects = {root: b"<< /Type /Outlines %s >>" % _ends(children[root])}
    for index, (title, page, _) in enumerate(entries):
        number = root + 1 + index
        among = children[parents[index]]
        place = among.index(number)
        objects[number] = b"<< /Title (%s) /Parent %d 0 R /Dest [%d 0 R /Fit] %s %s %s >>" % (
            _escaped(title),
            parents[index],
            first + 2 * page,
            b"/Prev %d 0 R" % among[place - 1] if place else b"",
            b"/Next %d 0 R" % among[place + 1] if place + 1 < len(among) else b"",
            _ends(children.get(number, [])),
        )
    return objects


def _ends(children: Sequence[int]) -> bytes:
    if not children:
        return b""
    return b"/First %d 0 R /Last %d 0 R /Count %d" % (children[0], children[-1], len(children))


def _escaped(text: str) -> bytes:
    return (
        text.encode("latin-1").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
    )


def _file(objects: Mapping[int, bytes]) -> bytes:
    data, places = b"%PDF-1.4\n", {}
    for number in sorted(objects):
        places[number] = len(data)
        data += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    table = len(data)
    last = max(objects)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (last + 1)
    for number in range(1, last + 1):
        data += (
            b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n"
        )
    return data + b"trailer << /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        last + 1,
        table,
    )
