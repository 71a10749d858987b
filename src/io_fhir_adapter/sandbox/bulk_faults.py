"""How the sandbox's Bulk Data export behaves, beside the faults that strike single answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BulkFaults"]


@dataclass(frozen=True)
class BulkFaults:
    """Choices and misbehaviour of ``$export``; a plain server by default.

    Faults of single answers (cut, truncated, expired, failing) are page faults whose ``token`` is ``$export``,
    ``bulk-status`` or ``bulk-file``.

    Attributes:
        polls: So many times the status is 202 before the manifest is there.
        per_file: Resources in one file.
        per_manifest: Output files on one page of the manifest; 0 for all on one.
        count: Whether the manifest says how many resources a file holds.
        count_off_by: Added to every count.
        final_newline: Whether files end with one.
        requires_token: ``requiresAccessToken``; without it a file request that carries credentials is refused (400),
            as storage behind signed addresses does.
        redirect_to: File requests are answered with 307 to this origin, where credentials are refused (400).
        file_origin: The origin that the manifest's file addresses name; empty for the server's own.
        gzip_files: Files are gzip by themselves, not by Content-Encoding.
        by_patient: Files mix types, ordered by patient, each part after a Parameters line (``organizeOutputBy``).
        lacking_types: Types that are not exported, whatever is asked for.
        foreign_lines: Further lines at the end of every output file, counted with the others.
        transaction_time: What the manifest says of its time; empty for the moment of the kick-off.
        reuses_jobs: A kick-off by GET that is the same as an earlier one gets the job of that one, unless it says
            ``Cache-Control: no-cache``.
        issues: Severities of the OperationOutcomes in the manifest's error file.
        issues_first: The manifest names that file among what was exported, before it.
        stray_types: Whether types are exported that were not asked for.
        refused_parameters: Kick-offs with one of them are 400.
        refused_methods: Kick-offs by these methods are 405.
        ignored_parameters: Kick-off parameters that have no effect.
        hides_deleted: The manifest never names deleted resources.
        refuses_delete: DELETE of a job is 405.
    """

    polls: int = 1
    per_file: int = 10_000
    per_manifest: int = 0
    count: Literal["right", "absent"] = "right"
    count_off_by: int = 0
    final_newline: bool = True
    requires_token: bool = True
    redirect_to: str = ""
    file_origin: str = ""
    gzip_files: bool = False
    by_patient: bool = False
    lacking_types: tuple[str, ...] = ()
    foreign_lines: tuple[str, ...] = ()
    transaction_time: str = ""
    reuses_jobs: bool = False
    issues: tuple[str, ...] = ()
    issues_first: bool = False
    stray_types: bool = False
    refused_parameters: tuple[str, ...] = ()
    refused_methods: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()
    hides_deleted: bool = False
    refuses_delete: bool = False
