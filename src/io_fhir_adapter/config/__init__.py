"""The configuration: one YAML file, validated whole, unknown keys refused, no secret inside.

Secrets are named, never written: each is a file (``…_file``) or an environment variable (``…_env``).
Relative paths are relative to the configuration file.
"""

from __future__ import annotations

from io_fhir_adapter.config.base import SecretRef
from io_fhir_adapter.config.http import AuthConfig
from io_fhir_adapter.config.load import load_config
from io_fhir_adapter.config.notify import NotifyConfig, TargetConfig
from io_fhir_adapter.config.scope import ScopeConfig, ScopeRuleConfig
from io_fhir_adapter.config.sign_in import ROLES, OidcConfig, OidcRolesConfig, Role, SignInConfig
from io_fhir_adapter.config.site import (
    FacilityConfig,
    LedgerConfig,
    MappingsConfig,
    OutputConfig,
    ReviewConfig,
    ScheduleConfig,
    SignatureConfig,
    SiteTableConfig,
    SubmissionConfig,
)
from io_fhir_adapter.config.sources import BulkConfig, FhirSourceConfig, FilesSourceConfig, PatientsConfig
from io_fhir_adapter.config.standing import StandingConfig
from io_fhir_adapter.config.whole import Config

__all__ = [
    "ROLES",
    "AuthConfig",
    "BulkConfig",
    "Config",
    "FacilityConfig",
    "FhirSourceConfig",
    "FilesSourceConfig",
    "LedgerConfig",
    "MappingsConfig",
    "NotifyConfig",
    "OidcConfig",
    "OidcRolesConfig",
    "OutputConfig",
    "PatientsConfig",
    "ReviewConfig",
    "Role",
    "ScheduleConfig",
    "ScopeConfig",
    "ScopeRuleConfig",
    "SecretRef",
    "SignInConfig",
    "SignatureConfig",
    "SiteTableConfig",
    "StandingConfig",
    "SubmissionConfig",
    "TargetConfig",
    "load_config",
]
