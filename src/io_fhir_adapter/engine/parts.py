"""The input in parts that several processes can take on: some small inputs, or a range of a large file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter.pull.files import InputFile, Span, spans_of

__all__ = ["Part", "parts_of", "size_of"]

_LEAST, _MOST = 4 << 20, 128 << 20  # bytes: with less, looking after parts costs more than it saves
_FOR_EACH: Final = 8  # parts for each worker, so that none has to wait long for the last one


@dataclass(frozen=True, slots=True)
class Part:
    """Whole inputs, or a span of one; ``size`` in bytes."""

    inputs: tuple[InputFile, ...]
    size: int
    span: Span | None = None

    @property
    def continues(self) -> bool:
        """Whether it goes on with the file of the part before it."""
        return self.span is not None and self.span.start > 0


def size_of(source: InputFile) -> int:
    """Bytes of a file; none of what cannot be looked at, which reading it will say."""
    try:
        return source.path.stat().st_size if source.path is not None else 0
    except OSError:
        return 0


def parts_of(inputs: Sequence[InputFile], workers: int) -> list[Part]:
    """The input in parts, in order.

    Args:
        inputs: What there is to read.
        workers: Over how many processes the parts go.
    """
    total = sum(map(size_of, inputs))
    size = min(max(total // (workers * _FOR_EACH), _LEAST), _MOST)
    parts: list[Part] = []
    small: list[InputFile] = []
    held = 0
    for source in inputs:
        spans = spans_of(source, size)
        if len(spans) > 1:
            parts += [*_whole(small, held), *_spans(source, spans)]
            small, held = [], 0
            continue
        small.append(source)
        held += size_of(source)
        if held >= size:
            parts += _whole(small, held)
            small, held = [], 0
    return [*parts, *_whole(small, held)]


def _whole(inputs: Sequence[InputFile], size: int) -> list[Part]:
    return [Part(tuple(inputs), size)] if inputs else []


def _spans(source: InputFile, spans: Iterable[Span]) -> list[Part]:
    whole = size_of(source)
    return [Part((source,), (whole if span.end is None else span.end) - span.start, span) for span in spans]
