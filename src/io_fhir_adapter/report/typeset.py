"""Setting papers: a template and one JSON text of all that varies become a PDF, the same bytes for the same text.

What sets them (typst) comes with the extra ``pdf``. It brings its fonts along, and fetches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from importlib.util import find_spec
from typing import Any, Final

from io_fhir_adapter.errors import ConfigError

__all__ = ["REPORT_PDF", "needs_typst", "typeset"]

REPORT_PDF: Final = "the PDF of the report"
"""What the nightly report on paper is called in messages."""


def needs_typst(what: str, where: str) -> None:
    """Refuses what cannot be set, before the work that is to be set is done.

    Args:
        what: What is to be set, such as ``the PDF of the report``.
        where: The key or option that asks for it.

    Raises:
        ConfigError: The library is not installed.
    """
    if find_spec("typst") is None:
        raise ConfigError(
            f"{what} needs typst, which is not installed",
            where=where,
            do="pip install 'io-fhir-adapter[pdf]', or do without the PDF",
            number=62,
        )


def typeset(template: str, data: Mapping[str, Any], moment: datetime) -> bytes:
    """The PDF.

    Args:
        template: A file of this room's templates; it adds fixed words alone.
        data: All that varies, as JSON values.
        moment: The time that the PDF says it was made at.
    """
    import typst  # noqa: PLC0415 - an extra

    made: bytes = typst.compile(
        resources.files("io_fhir_adapter.report").joinpath("templates", template).read_bytes(),
        format="pdf",
        ignore_system_fonts=True,
        sys_inputs={"data": json.dumps(data, ensure_ascii=False)},
        timestamp=moment,
    )
    return made
