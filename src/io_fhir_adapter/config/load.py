"""Reading the configuration file: YAML, checked whole, the first wrong element named."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from io_fhir_adapter.config.site import LedgerConfig, OutputConfig, ReviewConfig
from io_fhir_adapter.config.whole import Config
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.strict_yaml import fault_of, load_yaml

__all__ = ["load_config"]

_PATH_KEYS = {"file", "path", "key_file", "ca_file", "client_cert_file", "client_key_file", "folder"}
_DEFAULT_PATHS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("ledger", "path", LedgerConfig),
    ("review", "key_file", ReviewConfig),
    ("output", "folder", OutputConfig),
)


def load_config(path: Path) -> Config:
    """Reads and validates a configuration file.

    Raises:
        ConfigError: It does not exist, is no YAML, or something in it is wrong; the first wrong element is named,
            and for an unknown key the nearest known one.
    """
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            "the configuration file cannot be read", where=str(path), do="check the path given with --config"
        ) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # a ValueError: no text, or a date that does not exist
        twice, where = fault_of(exc, str(path))
        what, do = (twice, "keep one") if twice else ("the configuration is not valid YAML", "")
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
    is_file = isinstance(value, str) and (
        (key == "programme" and value.endswith((".yaml", ".yml"))) or (key == "questionnaire" and "://" not in value)
    )
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
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
