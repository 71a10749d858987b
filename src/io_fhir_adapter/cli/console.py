"""What the command line shows: progress, the story of a night, sentences about errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # what a night needs takes seconds to import, and most commands show none
    from io_fhir_adapter.night import Night
    from io_fhir_adapter.pipeline import Progress as Told
    from io_fhir_adapter.preflight import Check
    from io_fhir_adapter.review.sample import Sample
    from io_fhir_adapter.submit.deliver import Delivered
    from io_fhir_adapter.volume.count import Volume

__all__ = [
    "err", "one_line", "out", "say_error", "show_checks", "show_delivered", "show_files", "show_night", "show_short",
    "show_volume", "told_progress",
]  # fmt: skip

# no markup: names of files and codes may hold square brackets
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
_TOP_REASONS = 6
_LINE_EVERY_S = 5.0


@contextmanager
def told_progress() -> Iterator[Told]:
    """Progress bars on stderr, one for each thing that is being done; plain lines where it is no terminal."""
    if not err.is_terminal:
        lines = _Lines()
        try:
            yield lines.tell
        finally:
            lines.say()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bars = Progress(*columns, console=err, transient=False)
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int | None) -> None:
        bars.start()  # not before: it has a thread of its own, and processes are best started without any
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        if total is not None and done > total:
            total = done
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield tell
    finally:
        bars.stop()


class _Lines:
    """Progress as lines: one for each thing that is being done when the next begins, and some while it takes long."""

    def __init__(self) -> None:
        self._what = ""
        self._done = 0
        self._said = -1
        self._last = 0.0

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Takes note, and says it where it is time to."""
        if what != self._what:
            self.say()
            self._what, self._said, self._last = what, -1, time.monotonic()
        self._done = done
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            of = f" of {total:,}" if total is not None and total > done else ""
            self.say(of)

    def say(self, of: str = "") -> None:
        """Says how far it has come, unless that was said."""
        if self._what and self._done != self._said:
            err.print(f"{self._what}: {self._done:,}{of}")
            self._said, self._last = self._done, time.monotonic()


def show_volume(volume: Volume, title: str) -> None:
    """A period's volume in the terminal."""
    share = min(volume.counted / volume.threshold, 1.0)
    bar = "█" * round(share * 30) + "░" * (30 - round(share * 30))
    state = "reached" if volume.reached else f"{volume.threshold - volume.counted} short"
    colour = "green" if volume.reached else "yellow"
    out.print(
        Text.assemble(
            (f"{title}  ", "bold"), (f"{volume.counted}", f"bold {colour}"), f" of {volume.threshold}  ",
            (bar, colour), f"  {state}",
            (f"  (+{volume.review} for review, {volume.possible} possible)", "dim"),
        )
    )  # fmt: skip


def _reasons(title: str, reasons: dict[str, int], total: int) -> None:
    out.print(Text.assemble((f"{title:<14}", "bold"), f"{total:>7,}"), end="")
    top = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:_TOP_REASONS]
    out.print(Text("   " + ", ".join(f"{name} {number:,}" for name, number in top), style="dim"))


def show_night(night: Night) -> None:
    """The story of one night."""
    _show_sources(night)
    volume = night.volume
    if volume is not None:
        out.print(Text(f"Sessions of {volume.period.label}", style="bold underline"))
        _reasons("counted", {}, volume.counted)
        _reasons("review", volume.review_by_reason, volume.review)
        _reasons("not counted", volume.not_counted_by_reason, volume.not_counted)
        out.print()
        show_volume(volume, f"Volume {volume.period.label}")
    _show_sample(night)
    _show_submission(night)
    show_delivered(night.delivered)
    _show_verdicts(night)


def show_delivered(outcomes: Iterable[Delivered]) -> None:
    """What became of what was sent, one a line."""
    for delivered in outcomes:
        name = {"accepted": "Receipt", "rejected": "Receipt", "sent": "Sent"}.get(delivered.state, "Not sent")
        what = "stays queued" if delivered.state == "queued" else delivered.state
        out.print(f"{name:<12} {what}: {delivered.sentence}")


def _show_verdicts(night: Night) -> None:
    for said in night.polled.news:
        out.print(f"Verdict      {said.identifier[:19]}… {said.state}", end="")
        out.print(f": {one_line(said.note)}" if said.note else "")
    if night.polled.note:
        out.print(f"Verdict      {night.polled.note}")


def one_line(text: str) -> str:
    """A text of others for the terminal: on one line, without what would steer it."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _show_sources(night: Night) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    # A terminal of 80 columns holds the headings whole; where a name is long, it is that which is broken.
    table.add_column("source", overflow="fold", min_width=8)
    table.add_column("resource", no_wrap=True)
    for name in ("read", "new", "changed", "same", "gone", "set aside", "complete"):
        table.add_column(name, justify="right", no_wrap=True)
    for source in night.sources:
        for name, found in sorted(source.types.items()):
            numbers = (found.read, found.new, found.changed, found.unchanged, found.removed, found.quarantined)
            table.add_row(source.name, name, *(f"{number:,}" for number in numbers), "yes" if found.complete else "NO")
    out.print(table)
    for source in night.sources:
        for note in source.notes:
            out.print(Text(f"{source.name}: {note}", style="dim"))
    out.print()


def _show_sample(night: Night) -> None:
    if night.sample is not None and night.sample.waits:
        size = night.sample.draw.frame_size
        out.print(f"Case review  waits for the nonce of the draw ({size} patients committed to): {night.sample.waits}")
    elif night.sample is not None:
        draw = night.sample.draw
        done = "drawn" if night.sample.fresh else "drawn before"
        out.print(
            f"Case review  {len(night.sample.cases)} of {draw.frame_size} patients {done}, "
            f"window {draw.window_start} to {draw.window_end}, frame {draw.digest[:19]}…"
        )
        show_short(night.sample)


def show_short(sample: Sample) -> None:
    """Says so where the frame held fewer patients than the programme asks for."""
    if sample.short:
        everybody = f"all {sample.draw.frame_size} patients of the frame"
        out.print(f"{everybody} are in the sample: the programme asks for {sample.wanted}", style="yellow")


def _show_submission(night: Night) -> None:
    made = night.submission
    if made is not None:
        news = "new" if made.fresh else f"the same as before ({made.state}), nothing new to submit"
        out.print(f"Submission   {made.identifier[:19]}… {news}")
        out.print(
            f"             {made.share:.0%} of each form pre-filled, "
            f"{made.known_share:.0%} of what Procedure, Patient, Encounter and Condition can tell"
        )
        if night.guarded is not None:
            out.print(f"             {night.guarded.sentence}")
        if made.fresh and not night.delivered:
            how = "send it with the submit command" if night.signed is None else "somebody approves it in the browser"
            out.print(f"             waits for approval: {how}")
    elif night.signed is not None:
        out.print(f"Submission   waits for the reviewers: {night.signed.signed} of {night.signed.of} cases are signed")


def show_checks(checks: Iterable[Check]) -> None:
    """What was looked at, one a line, with what to do where something is wrong."""
    marks = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}
    for made in checks:
        out.print(Text.assemble(marks[made.state], f"  {made.name:<28} {made.text}"))
        if made.do:
            out.print(f"      {'':<28} → {made.do}", style="dim")


def show_files(files: Iterable[Path]) -> None:
    """Where output was written."""
    for path in files:
        out.print(f"written      {path}")


def say_error(sentence: str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"{sentence}\n")
