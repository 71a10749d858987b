"""The configuration as a whole."""

from __future__ import annotations

from pydantic import Field, model_validator

from io_fhir_adapter.config.base import Part
from io_fhir_adapter.config.notify import NotifyConfig
from io_fhir_adapter.config.scope import ScopeConfig
from io_fhir_adapter.config.sign_in import SignInConfig
from io_fhir_adapter.config.site import (
    FacilityConfig,
    LedgerConfig,
    MappingsConfig,
    OutputConfig,
    ReviewConfig,
    ScheduleConfig,
    SubmissionConfig,
)
from io_fhir_adapter.config.sources import SourceConfig
from io_fhir_adapter.config.standing import StandingConfig

__all__ = ["Config"]


class Config(Part):
    """The whole configuration; see the annotated examples in config/."""

    facility: FacilityConfig
    programme: str = "iasios"
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    mappings: MappingsConfig = MappingsConfig()
    scope: ScopeConfig = ScopeConfig()
    ledger: LedgerConfig = LedgerConfig()
    review: ReviewConfig = ReviewConfig()
    submission: SubmissionConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    output: OutputConfig = OutputConfig()
    sign_in: SignInConfig | None = None
    standing: tuple[StandingConfig, ...] = ()
    notify: NotifyConfig | None = None

    @model_validator(mode="after")
    def _somebody_approves(self) -> Config:
        sends = self.submission is not None and self.submission.automatic is True
        if sends and self.sign_in is None and self.submission is not None and not self.submission.approver:
            msg = (
                "submission.automatic is true and nobody approves: no case leaves without an approver; name "
                "submission.approver, configure sign_in, or set submission.automatic to volumes"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            msg = "two sources have the same name"
            raise ValueError(msg)
        programmes = [entry.programme for entry in self.standing]
        if len(set(programmes)) != len(programmes):
            msg = "standing names a programme twice"
            raise ValueError(msg)
        return self
