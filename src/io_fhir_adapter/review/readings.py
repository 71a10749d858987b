"""In which ways a text can be read: its plain form, and what its encodings, spellings and separators may hide.

Texts are compared in their plain form (compatibility-composed, case-folded, single spaces, without invisible
characters, with one kind of hyphen). Beside it stand the readings that somebody could still tell a person from:
percent, HTML, JSON, quoted-printable, hexadecimal and base64 encodings opened, also one within another; letters without
their marks, and as German writes them without umlauts; numbers without the spaces, slashes and hyphens in them.
"""

from __future__ import annotations

import base64
import binascii
import html
import quopri
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_plus

__all__ = ["phone_cores", "phones_in", "plain", "readings", "spellings"]

_DEPTH: Final = 3
"""How many encodings are opened within one another."""
_LEAST_DIGITS: Final = 6
_LEAST_CORE, _LEAST_CUT_CORE = 7, 8
_COUNTRY_CODE: Final = 3

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_HYPHENS = re.compile("[\u2010-\u2015\u2212]")
_MARKS = re.compile("[\u0300-\u036f]")
_LETTERS = {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h"}
_BARE = str.maketrans(_LETTERS)
_GERMAN = str.maketrans(_LETTERS | {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})

_TAG = re.compile(r"<[^>]*>")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_QUOTED = re.compile(r"=[0-9A-F]{2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_URL_SAFE = str.maketrans("-_", "+/")

_AROUND = re.compile(r" ?([./-]) ?")
_WITHIN = re.compile(r"(?<=[0-9])[ /-](?=[0-9])")
_PHONE = re.compile(r"(?<![\w.])(?:\+|\(?0)[0-9 ()/.-]{5,}[0-9](?!\w)")
_TRUNK = "(0)"


def plain(text: str) -> str:
    """The form in which texts are compared."""
    if text.isascii():
        folded = text.lower()
    else:
        composed = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
        folded = _HYPHENS.sub("-", unicodedata.normalize("NFKC", composed))
    return " ".join(folded.split()) if "  " in folded or not folded.isprintable() else folded


def spellings(text: str) -> tuple[str, ...]:
    """A plain text without the marks on its letters: as they are, and as German writes them; none for plain ASCII."""
    if text.isascii():
        return ()
    bare, german = (
        _MARKS.sub("", unicodedata.normalize("NFKD", text.translate(letters))) for letters in (_BARE, _GERMAN)
    )
    return (bare,) if bare == german else (bare, german)


def readings(text: str) -> Iterator[str]:
    """Every plain text that ``text`` can be read as, each once, the text itself first."""
    seen: set[str] = set()
    opened = [text]
    for depth in range(_DEPTH + 1):
        for one in opened:
            read = plain(one)
            for form in (read, *spellings(read), *_numbers(read)):
                if form not in seen:
                    seen.add(form)
                    yield form
        if depth < _DEPTH:
            opened = [inner for one in opened for inner in _opened(one) if inner != one]


def _numbers(text: str) -> Iterator[str]:
    """With numbers and dates written together."""
    if sum(map(text.count, "0123456789")) < _LEAST_DIGITS:
        return
    if " " in text:
        yield _AROUND.sub(r"\1", text)
    if _WITHIN.search(text):
        yield _WITHIN.sub("", text)


def _opened(text: str) -> Iterator[str]:
    """What is written in encodings that a text may be in as a whole or in parts."""
    if "%" in text:
        yield unquote(text)
        yield unquote_plus(text)
        yield unquote(text, encoding="latin-1")
    if "&" in text:
        yield html.unescape(text)
    if "<" in text:
        yield _TAG.sub("", text)
    if "\\" in text:
        yield _ESCAPE.sub(lambda found: chr(int(found.group(1) or found.group(2), 16)), text)
    if "=" in text and text.isascii() and _QUOTED.search(text):
        yield quopri.decodestring(text.encode()).decode("utf-8", errors="replace")
    for found in _BASE64.finditer(text):
        yield from _of_bytes(found.group())


def _of_bytes(word: str) -> Iterator[str]:
    """The text that a word is in base64 or hexadecimal digits, where it is one."""
    try:
        if _HEX.match(word) and len(word) % 2 == 0:
            data = bytes.fromhex(word)
        else:
            body = word.rstrip("=").translate(_URL_SAFE)
            data = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
        text = data.decode("utf-8")
    except (binascii.Error, ValueError):
        return
    if all(letter.isprintable() or letter.isspace() for letter in text):
        yield text


def phones_in(text: str) -> Iterator[str]:
    """What of a plain text may be a phone number: with a country's or the trunk prefix, and at least seven digits."""
    if "0" in text or "+" in text:
        for found in _PHONE.finditer(text):
            yield found.group()


def phone_cores(number: str) -> frozenset[str]:
    """What is left of a phone number without prefixes: the same for ``+49 (0)30 1234567`` and ``030/1234567``.

    How long the country's code is cannot be told from the number, so that there are several.
    """
    international = number.startswith(("+", "00"))
    digits = "".join(filter(str.isdigit, number.replace(_TRUNK, ""))).lstrip("0")
    cores = {digits} if len(digits) >= _LEAST_CORE else set()
    if international:
        cut = (digits[length:].lstrip("0") for length in range(1, _COUNTRY_CODE + 1))
        cores |= {core for core in cut if len(core) >= _LEAST_CUT_CORE}
    return frozenset(cores)
