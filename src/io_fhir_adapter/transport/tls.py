"""Certificates: whom to believe, what to show, and when they end."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import cache
from typing import Final

import httpx

from io_fhir_adapter.config.http import HttpConfig
from io_fhir_adapter.errors import ConfigError

__all__ = [
    "client_certificate_end",
    "home_context",
    "is_distrust",
    "is_refused_handshake",
    "outside_context",
    "peer_end",
]

_HANDSHAKE_REFUSALS: Final = (
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_ACCESS_DENIED",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_PROTOCOL_VERSION",
)


def home_context(config: HttpConfig, where: str) -> ssl.SSLContext:
    """For the configured server: the hospital's own authority where one is named, and the client's certificate.

    Raises:
        ConfigError: A file or the key's password cannot be used.
    """
    if config.ca_file is None and config.client_cert_file is None:
        return _shared()
    context = _public() if config.ca_file is None else _own(config)
    if config.client_cert_file is not None:
        password = config.client_key_password
        secret = password.read(where) if password is not None else ""
        try:
            # a callable, so that a key that needs a password never asks for it at the terminal
            context.load_cert_chain(config.client_cert_file, config.client_key_file, lambda: secret)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                "the client certificate or its key cannot be used",
                where=str(config.client_cert_file),
                do="give PEM files that belong together, and the key's password if it has one",
                number=10,
            ) from exc
    return context


def outside_context(config: HttpConfig) -> ssl.SSLContext:
    """For other places: the public authorities beside the hospital's own, and no certificate of ours.

    Raises:
        ConfigError: The CA file cannot be used.
    """
    if config.ca_file is None:
        return _shared()
    context = _public()
    _load_ca(context, config)
    return context


def client_certificate_end(config: HttpConfig) -> datetime | None:
    """When the configured client certificate ends; None without one.

    Raises:
        ConfigError: The file cannot be used.
    """
    if config.client_cert_file is None:
        return None
    from cryptography import x509  # noqa: PLC0415 - eight MiB, and a pull does without

    try:
        certificate = x509.load_pem_x509_certificate(config.client_cert_file.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(
            "the client certificate cannot be read",
            where=str(config.client_cert_file),
            do="give a PEM file with the certificate",
            number=10,
        ) from exc
    return certificate.not_valid_after_utc


def peer_end(response: httpx.Response) -> datetime | None:
    """When the certificate that the server showed ends; None without TLS."""
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    end = (tls.getpeercert() or {}).get("notAfter") if tls is not None else None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC) if end else None


def is_distrust(exc: BaseException) -> bool:
    """Whether a failed check of the server's certificate lies behind an error; no later attempt will pass it."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(exc))


def is_refused_handshake(exc: BaseException) -> bool:
    """Whether the server ended the handshake: mostly it wants a certificate of ours, or not this one."""
    return any(
        isinstance(one, ssl.SSLError) and any(reason in str(one).upper() for reason in _HANDSHAKE_REFUSALS)
        for one in _chain(exc)
    )


def _chain(exc: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    behind: BaseException | None = exc
    while behind is not None and behind not in found:
        found.append(behind)
        behind = behind.__cause__ or behind.__context__
    return found


@cache
def _shared() -> ssl.SSLContext:
    """One for all who need no more than the public authorities: reading them takes a tenth of a second."""
    return _public()


def _public() -> ssl.SSLContext:
    """The authorities that httpx brings, and those of this machine (OpenSSL heeds SSL_CERT_FILE)."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _own(config: HttpConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load_ca(context, config)
    return context


def _load_ca(context: ssl.SSLContext, config: HttpConfig) -> None:
    try:
        context.load_verify_locations(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            "the CA file cannot be read",
            where=str(config.ca_file),
            do="give a PEM file with the CA certificate",
            number=4,
        ) from exc
