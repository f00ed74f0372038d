"""HTML that is safe by construction: what is not already `Html` is escaped when it enters a page."""

from __future__ import annotations

import html
import unicodedata

__all__ = ["Html", "join", "tag", "text"]

_VOID = frozenset({"meta", "br", "col"})
_PLAIN = frozenset("\t\n\u200c\u200d")  # the two joiners are spelling in Persian, Hindi and emoji


class Html(str):
    """Markup that this package made. Anything else is a plain string, and escaped."""

    __slots__ = ()


def text(value: str) -> Html:
    r"""Escapes `value`, and shows what a reader could not see.

    Control, format and direction signs and lone surrogates become a visible code such as `U+202E`: a record may hide
    text with them, and a surrogate could not be written as UTF-8 at all.

    Example:
        >>> text('<b>&"')
        '&lt;b&gt;&amp;&quot;'
        >>> text("a\x00")
        'a<span class="ctl">U+0000</span>'
    """
    if value.isascii() and value.replace("\n", "").replace("\t", "").isprintable():
        return Html(html.escape(value))
    return Html("".join(_visible(sign) for sign in value))


def tag(name: str, /, *children: str | int, **attributes: str | int | None) -> Html:
    """One element; children and attribute values that are not `Html` are escaped, a None attribute is left out.

    A trailing underscore is cut from an attribute's name, and the others become hyphens.

    Example:
        >>> tag("p", "1 < 2", class_="x")
        '<p class="x">1 &lt; 2</p>'
    """
    opening = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value)).encode(errors="replace").decode()}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{opening}>") if name in _VOID else Html(f"<{opening}>{join(*children)}</{name}>")


def join(*children: str | int) -> Html:
    """Children one after another, each escaped unless it is `Html`.

    Example:
        >>> join("<", tag("br"))
        '&lt;<br>'
    """
    return Html("".join(child if isinstance(child, Html) else text(str(child)) for child in children))


def _visible(sign: str) -> str:
    if sign in _PLAIN or unicodedata.category(sign) not in ("Cc", "Cf", "Cs"):
        return html.escape(sign)
    return f'<span class="ctl">U+{ord(sign):04X}</span>'
