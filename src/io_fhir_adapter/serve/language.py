"""What the service's pages say, in German and in English."""

from __future__ import annotations

from pathlib import Path

from io_fhir_adapter.look.language import LANGUAGES, Words, language_of

__all__ = ["LANGUAGES", "language_of", "texts", "translator"]

_WORDS = Words(Path(__file__).parent / "words")
texts = _WORDS.texts
translator = _WORDS.translator
