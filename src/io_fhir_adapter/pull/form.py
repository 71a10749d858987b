"""The case-review form where a body publishes it: fetched from its address, as JSON."""

from __future__ import annotations

from pydantic import HttpUrl

from io_fhir_adapter.config import Config, FhirSourceConfig, SubmissionConfig
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["fetch_form"]

_WHERE = "review.questionnaire"


async def fetch_form(config: Config, url: str) -> bytes:
    """The JSON at an address.

    What lies below the accreditation system's own address is asked for with its sign-in, anything else without one
    but through the same proxy.

    Raises:
        TransportError: It cannot be fetched.
    """
    endpoint = config.submission
    below = endpoint is not None and url.startswith(f"{endpoint.base_url}/")
    server = endpoint if endpoint is not None and below else _open_server(endpoint, url)
    async with FhirClient(server, _WHERE) as client:
        return (await client.get(url)).body


def _open_server(endpoint: SubmissionConfig | None, url: str) -> FhirSourceConfig:
    base = HttpUrl(url.partition("?")[0].rpartition("/")[0])
    if endpoint is None:
        return FhirSourceConfig(name="questionnaire", kind="fhir", url=base)
    return FhirSourceConfig(
        name="questionnaire",
        kind="fhir",
        url=base,
        ca_file=endpoint.ca_file,
        proxy=endpoint.proxy,
        proxy_username=endpoint.proxy_username,
        proxy_password=endpoint.proxy_password,
        retries=endpoint.retries,
        max_retry_wait_s=endpoint.max_retry_wait_s,
    )
