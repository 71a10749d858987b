"""The configuration: one YAML file, validated whole, unknown keys refused, no secret inside.

Secrets are named, never written: each is a file (``…_file``) or an environment variable (``…_env``).
Relative paths are relative to the configuration file.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, field_validator, model_validator

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone

__all__ = [
    "AuthConfig",
    "Config",
    "FacilityConfig",
    "FhirSourceConfig",
    "FilesSourceConfig",
    "LedgerConfig",
    "MappingsConfig",
    "OutputConfig",
    "ReviewConfig",
    "ScheduleConfig",
    "SecretRef",
    "SiteTableConfig",
    "SubmissionConfig",
    "load_config",
]

_NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRef(_Part):
    """A secret by reference: exactly one of a file and an environment variable."""

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_not_written(cls, value: Any) -> Any:
        if not isinstance(value, dict | SecretRef):
            msg = "a secret is named here, never written: { env: NAME } or { file: PATH }"
            raise ValueError(msg)  # noqa: TRY004 - pydantic wants a ValueError
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> SecretRef:
        if (self.file is None) == (self.env is None):
            msg = "give exactly one of file and env"
            raise ValueError(msg)
        return self

    def read(self, where: str) -> str:
        """The secret's text, without surrounding white space.

        Raises:
            ConfigError: The file or variable does not exist or is empty.
        """
        if self.env is not None:
            value, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            place = str(self.file)
            try:
                value = Path(place).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(
                    f"the secret in {place} cannot be read",
                    where=where,
                    do="check the path and its permissions",
                    number=3,
                ) from exc
        if not value.strip():
            raise ConfigError(f"the secret in {place} is empty", where=where, do="set it and start again", number=3)
        return value.strip()


class FacilityConfig(_Part):
    """The department that seeks accreditation."""

    code: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    name: str = ""
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zone(value)
        except ConfigError as exc:
            raise ValueError(exc.what) from exc
        return value


class AuthConfig(_Part):
    """How to sign in at a server: nothing, a bearer token, or a user name and password."""

    kind: Literal["none", "bearer", "basic"] = "none"
    token: SecretRef | None = None
    username: str | None = None
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _complete(self) -> AuthConfig:
        if self.kind == "none" and (self.token or self.username or self.password):
            msg = "kind is none, so nothing would be sent; set kind to bearer or basic"
            raise ValueError(msg)
        if self.kind == "bearer" and self.token is None:
            msg = "bearer needs token (a file or an env)"
            raise ValueError(msg)
        if self.kind == "basic" and (self.username is None or self.password is None):
            msg = "basic needs username and password (a file or an env)"
            raise ValueError(msg)
        return self


class _HttpConfig(_Part):
    url: HttpUrl
    auth: AuthConfig = AuthConfig()
    trusted_origins: tuple[HttpUrl, ...] = ()
    ca_file: Path | None = None
    connect_timeout_s: float = Field(default=10, gt=0, le=600)
    read_timeout_s: float = Field(default=120, gt=0, le=3600)
    retries: int = Field(default=5, ge=0, le=20)
    max_retry_wait_s: float = Field(default=60, ge=0, le=3600)
    max_response_mib: int = Field(default=256, gt=0, le=4096)

    @field_validator("url", "trusted_origins")
    @classmethod
    def _address_only(cls, value: Any) -> Any:
        for url in value if isinstance(value, tuple) else (value,):
            if url.username or url.password:
                msg = "the URL holds a user name or password; name them under auth"
                raise ValueError(msg)
            if url.query or url.fragment:
                msg = "the URL goes on after the path; give the base URL alone"
                raise ValueError(msg)
        return value

    @property
    def base_url(self) -> str:
        """The base URL without a trailing slash."""
        return str(self.url).rstrip("/")


class FhirSourceConfig(_HttpConfig):
    """A FHIR server to pull from by search."""

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["fhir"] = "fhir"
    since: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    page_size: int = Field(default=500, ge=1, le=10_000)
    batch_size: int = Field(default=100, ge=1, le=1_000)
    concurrency: int = Field(default=4, ge=1, le=32)
    overlap_minutes: int = Field(default=10, ge=0, le=7 * 24 * 60)

    @field_validator("since", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> Any:
        return None if value is None else str(value)  # YAML reads an unquoted date as one


class FilesSourceConfig(_Part):
    """Files or folders to read as a source: an export that another tool drops."""

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)


SourceConfig = Annotated[FhirSourceConfig | FilesSourceConfig, Field(discriminator="kind")]


class SiteTableConfig(_Part):
    """A site's own code table."""

    system: str = Field(min_length=1)
    file: Path


class MappingsConfig(_Part):
    """Additions to the shipped mappings."""

    site_tables: tuple[SiteTableConfig, ...] = ()


class LedgerConfig(_Part):
    """The local database: a SQLite file, or any SQLAlchemy URL (whose password comes from a secret)."""

    path: Path | None = Path("ledger.sqlite")
    url: str | None = None
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _no_password_in_url(self) -> LedgerConfig:
        if self.url and "@" in self.url and ":" in self.url.partition("://")[2].rpartition("@")[0]:
            msg = "the URL holds a password; name it under ledger.password (a file or an env)"
            raise ValueError(msg)
        return self


class ReviewConfig(_Part):
    """The case review: where the pseudonym key lies; it never leaves the facility."""

    key_file: Path = Path("pseudonym.key")


class SubmissionConfig(_HttpConfig):
    """The accreditation system's FHIR endpoint. ``automatic`` sends without a person's approval."""

    automatic: bool = False
    give_up_after_days: int = Field(default=14, ge=1, le=365)


class ScheduleConfig(_Part):
    """When the service runs the nightly job: five cron fields in the facility's time zone."""

    cron: str = "30 2 * * *"
    jitter_s: int = Field(default=300, ge=0, le=3600)

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            msg = "a schedule has five fields: minute hour day month weekday"
            raise ValueError(msg)
        return value


class OutputConfig(_Part):
    """Where the report and the copies of what was made go."""

    folder: Path = Path("out")


class Config(_Part):
    """The whole configuration; see the annotated examples in config/."""

    facility: FacilityConfig
    programme: str = "iasios"
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    mappings: MappingsConfig = MappingsConfig()
    ledger: LedgerConfig = LedgerConfig()
    review: ReviewConfig = ReviewConfig()
    submission: SubmissionConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            msg = "two sources have the same name"
            raise ValueError(msg)
        return self


_PATH_KEYS = {"file", "path", "key_file", "ca_file", "folder"}
_DEFAULT_PATHS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("ledger", "path", LedgerConfig),
    ("review", "key_file", ReviewConfig),
    ("output", "folder", OutputConfig),
)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key written twice is an error, not the second one's silent victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "a key is written twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> Config:
    """Reads and validates a configuration file.

    Raises:
        ConfigError: It does not exist, is no YAML, or something in it is wrong; the first wrong element is named,
            and for an unknown key the nearest known one.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except OSError as exc:
        raise ConfigError(
            "the configuration file cannot be read", where=str(path), do="check the path given with --config"
        ) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # a ValueError: no text, or a date that does not exist
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        twice = getattr(exc, "problem", "") == "a key is written twice"
        what, do = ("a key is written twice", "keep one") if twice else ("the configuration is not valid YAML", "")
        raise ConfigError(what, where=where, do=do or "check dates, quotes and the indentation there") from exc
    if not isinstance(document, dict):
        raise ConfigError(
            "the configuration has no settings", where=str(path), do="start from one of the examples in config/"
        )
    try:
        return Config.model_validate(_absolute(_with_default_paths(document), path.resolve().parent))
    except ValidationError as exc:
        raise _first_error(exc, path) from exc


def _with_default_paths(document: dict[Any, Any]) -> dict[Any, Any]:
    """The document with the paths that it leaves out, so that they too are relative to it and not to the shell."""
    complete = dict(document)
    for section, key, model in _DEFAULT_PATHS:
        part = complete.get(section, {})
        if isinstance(part, dict) and key not in part:
            complete[section] = {**part, key: str(model.model_fields[key].default)}
    return complete


def _absolute(value: Any, folder: Path, key: str = "") -> Any:
    """The document with every path made absolute against the configuration's folder."""
    if isinstance(value, dict):
        return {name: _absolute(item, folder, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, folder, key) for item in value]
    is_file = key == "programme" and isinstance(value, str) and value.endswith((".yaml", ".yml"))
    if isinstance(value, str) and value and (is_file or key in _PATH_KEYS or (key == "paths" and value != "-")):
        return str(folder / Path(value).expanduser())
    return value


def _first_error(exc: ValidationError, path: Path) -> ConfigError:
    errors = exc.errors()
    error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in error["loc"] if part not in {"fhir", "files"})
    if error["type"] == "extra_forbidden":
        unknown = str(error["loc"][-1])
        near = difflib.get_close_matches(unknown, _keys_at(error["loc"][:-1]), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "remove it, or see the examples in config/"
        return ConfigError(f"{place} is not a known key", where=str(path), do=hint, number=2)
    if error["type"] == "missing":
        return ConfigError(f"{place} is missing", where=str(path), do="add it; see the examples in config/", number=2)
    if error["type"].startswith("union_tag"):
        return ConfigError(f"{place}.kind says no kind of source", where=str(path), do="write fhir or files", number=2)
    message = str(error["msg"]).removeprefix("Value error, ")
    return ConfigError(f"{place}: {message}" if place else message, where=str(path), do="correct it", number=2)


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model knows at a place of the document."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if isinstance(part, int):
            continue
        inner: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                inner += _models_in(model.model_fields[part].annotation)
            elif part in {"fhir", "files"}:  # the discriminator of a source
                inner.append(model)
        models = inner or models
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
