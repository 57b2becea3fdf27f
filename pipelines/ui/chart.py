"""Charts as SVG, made on the server: a bar for each run."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _LABEL = 640, 150, 18
_GAP = 0.25


def bars(title: str, names: Sequence[str], values: Sequence[int]) -> str:
    """Returns a bar chart.

    Each bar has its name and value as a title, which browsers show and read aloud.

    Args:
        title: What it shows.
        names: A name for each bar.
        values: The height of each bar; at least one is not 0.
    """
    highest = max(values)
    step = _WIDTH / max(len(values), 8)
    drawn = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        height = (_HEIGHT - 2 * _LABEL) * value / highest
        # A small value among large ones is still seen.
        height = max(height, 2.0) if value else 0.0
        drawn.append(
            Markup(
                '<g><title>{}: {:,}</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" '
                'height="{:.1f}" rx="1.5"/></g>'
            ).format(
                escape(name),
                value,
                place * step,
                _HEIGHT - _LABEL - height,
                step * (1 - _GAP),
                height,
            )
        )
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {} runs, at most {:,}">'
        '<text x="0" y="12">{:,}</text>'
        '<line x1="0" x2="{}" y1="{}" y2="{}"/>{}</svg></figure>'
    ).format(
        title,
        _WIDTH,
        _HEIGHT,
        title,
        len(values),
        highest,
        highest,
        _WIDTH,
        _HEIGHT - _LABEL,
        _HEIGHT - _LABEL,
        Markup("").join(drawn),
    )
