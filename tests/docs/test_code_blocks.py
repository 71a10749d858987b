"""The manual does what it says: its commands run, its YAML is a configuration, its JSON is FHIR.

Commands run in a folder of their own, a copy of one site on which a night was done between the synthetic hospital and
the reference receiver. What is not run stands in :data:`NOT_RUN` with its reason, and is read by the command line all
the same; what is no command of ours stands in :data:`FOREIGN`.
"""

from __future__ import annotations

import getpass
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from tests.docs.blocks import ROOT, Block, blocks_of, commands_in, pages
from tests.e2e.conftest import Recorder, here, same_nonces, write_config

from io_fhir_adapter.canonical_urls import DRAW_TASK, FRAME_SYSTEM, VERDICT_TASK
from io_fhir_adapter.cli.main import COMMANDS
from io_fhir_adapter.cli.on_demand import command
from io_fhir_adapter.config import Config, load_config
from io_fhir_adapter.demo import AS_OF
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.registry import load_registry
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.shipped import shipped_path

PROGRAM = "io-fhir-adapter"
PASSWORD = "nine correct horses 9"
MOST_NOT_RUN = 4

NOT_RUN = {
    "demo": "the same night with a larger hospital; the end-to-end tests run it",
    "receiver": "runs until it is stopped",
    "notify test": "sends messages",
    "outbox retry": "nothing is parked or rejected on the site",
}
FOREIGN = {
    "make": "targets of the Makefile, which are looked up there",
    "python3": "makes a virtual environment; the tests of the installed wheel do",
    "python": "measures for minutes; make bench does",
    "pip": "fetches packages; the tests of the installed wheel do",
    "cp": "copies what the tests of the wheel look for in it",
    "install": "as root, on the machine that it is installed on",
    "useradd": "as root, on the machine that it is installed on",
    "openssl": "makes a password",
    "podman": "needs a machine that runs containers; the tests of deploy/ read what it reads",
    "kubectl": "needs a cluster; the tests of deploy/ read what it reads",
    "tar": "packs what pip fetched",
    "systemctl": "needs systemd as the machine's first process",
    "pg_dump": "PostgreSQL's own",
    "pg_restore": "PostgreSQL's own",
}
TEXT_ONLY = {"text", "csv"}  # pictures, output and columns: no commands
MINIMAL: dict[str, Any] = {
    "facility": {"code": "F-1", "time_zone": "Europe/Berlin"},
    "sources": [{"name": "clinic", "kind": "fhir", "url": "https://fhir.hospital.example/r4"}],
}
BLOCKS = [block for page in pages() for block in blocks_of(page)]
COMMAND_BLOCKS = [block for block in BLOCKS if block.language in {"console", "sh", "bash"}]


def named(blocks: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in blocks]


@dataclass(frozen=True)
class Site:
    """A facility after its first night, what its commands are told in place of the manual's examples, what it sent."""

    folder: Path
    words: dict[str, str]
    endpoint: str
    sent: list[bytes]

    def filled(self, words: list[str]) -> list[str]:
        return [self._filled(word) for word in words]

    def _filled(self, word: str) -> str:
        for example, own in self.words.items():
            word = word.replace(example, own)
        return word


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One night between the sandbox and the receiver, signed and accepted; an export, and a backup."""
    folder = tmp_path_factory.mktemp("manual") / "site"
    (folder / "secrets").mkdir(parents=True)
    hospital = build_hospital(7, patients=60, procedures=240)
    resources = [one for found in hospital.resources.values() for one in found]
    received = ReceiverStore("sqlite://")
    recorder = Recorder(receiver_app(received))
    with (
        same_nonces(),
        pytest.MonkeyPatch.context() as patch,
        LoopbackServer(sandbox_app(SandboxStore.from_resources(resources))) as sandbox,
        LoopbackServer(recorder) as receiver,
    ):
        patch.chdir(folder)
        path = write_config(folder, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir", cases=2)
        code, jwks, _ = here("keys", "new", "signing.json")
        assert code == 0
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        document["submission"]["signing_key"] = {"file": "signing.json"}
        for name in ("facility.yaml", "hospital.yaml"):
            (folder / name).write_text(yaml.safe_dump(document), encoding="utf-8")
        (folder / "facility.jwks.json").write_text(jwks, encoding="utf-8")
        code, _, err = here("run", "--config", "facility.yaml", "--as-of", AS_OF.isoformat())
        assert code == 0, err
        assert {one.name for one in (folder / "out").iterdir()} >= {"report.html", "submission.json"}
        shutil.copy(folder / "out" / "submission.json", folder)
        (folder / "demo").mkdir()
        shutil.copy(folder / "submission.json", folder / "demo")
        (folder / "export").mkdir()
        lines = "".join(json.dumps(one) + "\n" for one in resources if one["resourceType"] == "Procedure")
        (folder / "export" / "Procedure.ndjson").write_text(lines, encoding="utf-8")
        for name in ("old", "new"):
            (folder / name).mkdir()
            (folder / name / "mappings").symlink_to(shipped_path("mappings"))
        assert here("backup", "--config", "facility.yaml", "--out", "ledger.backup")[0] == 0
        sealed = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
        identifier = sealed["identifier"]["value"].removeprefix("sha256:")
        explained = next(one["id"] for one in resources if one["resourceType"] == "Procedure")
        yield Site(
            folder,
            {
                "4711": explained,
                "3f9a2c": identifier,
                "9f4c1f15c7de": identifier,
                "/mnt/backup/ledger-F1-20260130T030000Z.sqlite": "ledger.backup",
                "/mnt/backup": "backups",
                "local-codes.csv": str(shipped_path("config", "sandbox-local-codes.csv")),
                "https://klinikum.example/CodeSystem/ris-keys": "http://sandbox.example/CodeSystem/ris",
                "ops2026.csv": "ops-codes.csv",
            },
            f"{receiver.base_url}/fhir",
            recorder.bodies,
        )
    received.close()


@pytest.fixture
def copy_of_the_site(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Site:
    """The site for one block, which may do with it what it likes."""
    folder = shutil.copytree(site.folder, tmp_path / "site", symlinks=True)
    (folder / "backups").mkdir()
    (folder / "ops-codes.csv").write_text("code\n8-836.0\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(getpass, "getpass", lambda *_, **__: PASSWORD)
    return replace(site, folder=folder)


def read_by_the_command_line(words: list[str]) -> tuple[str, str]:
    """The name of the command with these words and why it does not take them, without doing anything."""
    name, *rest = words
    if name not in COMMANDS:
        return name, f"there is no command {name}"
    found, path, context = command(COMMANDS, name), [name], None
    try:
        while hasattr(found, "commands"):
            context = typer.Context(found, info_name=" ".join(path), parent=context)
            under, found, rest = found.resolve_command(context, rest)
            path.append(str(under))
        found.make_context(" ".join(path), list(rest), parent=context)
    except Exception as exc:
        said_why = getattr(exc, "format_message", None)  # a usage error, of whichever click
        if said_why is None:
            raise
        return " ".join(path), str(said_why())
    return " ".join(path), ""


def ours(words: list[str]) -> bool:
    return words[0].rpartition("/")[2] == PROGRAM


@pytest.mark.xdist_group("manual")
@pytest.mark.parametrize("block", named(COMMAND_BLOCKS))
def test_every_command_does_what_it_is_there_for(block: Block, copy_of_the_site: Site) -> None:
    for line in commands_in(block.text):
        if not ours(line):
            assert line[0].rpartition("/")[2] in FOREIGN, f"{block.place}: {line[0]} is neither run nor excused"
            continue
        words, into = redirected(line)
        if words[1:] == ["--version"]:
            continue
        name, fault = read_by_the_command_line(words[1:])
        assert fault == "", f"{block.place}: {' '.join(words)}: {fault}"
        if name in NOT_RUN or "spark" in words:  # Spark needs Java, and seconds to start; the tests of the engine do
            continue
        code, out, err = here(*copy_of_the_site.filled(words[1:]))
        assert code == 0, f"{block.place}: {' '.join(words)}: {err or out}"
        if into:
            Path(into).write_text(out, encoding="utf-8")


def redirected(words: list[str]) -> tuple[list[str], str]:
    """A command without its redirection, and the file that its output goes to."""
    at = words.index(">") if ">" in words else len(words)
    return words[:at], "".join(words[at + 1 :])


def test_what_is_not_run_is_in_the_manual_and_is_little() -> None:
    found = {read_by_the_command_line(words[1:])[0] for block in COMMAND_BLOCKS for words in commands_in(block.text)
             if ours(words) and words[1:] != ["--version"]}  # fmt: skip
    programs = {words[0].rpartition("/")[2] for block in COMMAND_BLOCKS for words in commands_in(block.text)}
    assert sorted(set(NOT_RUN) - found) == []
    assert sorted(set(FOREIGN) - programs) == []
    assert len(NOT_RUN) <= MOST_NOT_RUN


def test_the_targets_that_the_manual_names_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {words[1] for block in COMMAND_BLOCKS for words in commands_in(block.text) if words[0] == "make"}
    for page in pages():
        asked |= set(re.findall(r"`make ([a-z]+)`", page.read_text(encoding="utf-8")))
    assert asked
    assert sorted(asked - targets) == []


def test_the_services_that_the_manual_names_are_those_of_the_units() -> None:
    units = {path.name for path in (ROOT / "deploy" / "systemd").glob("*.*")} - {"io-fhir-adapter-.service.d"}
    named = {word for block in COMMAND_BLOCKS for words in commands_in(block.text) if words[0] == "systemctl"
             for word in words[1:] if word.startswith(PROGRAM)}  # fmt: skip
    assert named
    assert sorted(named - units) == []


def test_commands_in_the_text_are_read_by_the_command_line() -> None:
    faults = []
    for page in pages():
        for words in re.findall(rf"`{PROGRAM} ([^`]+)`", page.read_text(encoding="utf-8")):
            if "[" in words or "…" in words or words.isupper():
                continue
            words_of, _ = redirected(commands_in(words.replace("\\|", "|"))[0])
            fault = read_by_the_command_line(words_of)[1]
            # a sentence may name a command without its configuration, and with a word for a value
            if fault and not fault.startswith("Missing") and not re.search(r"\b[A-Z]{4,}\b", words):
                faults.append(f"{page.name}: {words}: {fault}")
    assert faults == []


def config_fields(part: Any) -> set[str]:
    return set(part.model_fields)


def merged(fragment: dict[str, Any]) -> dict[str, Any]:
    """A fragment of a configuration in a minimal one: of the whole, of a source, of signing in, or a secret."""
    source = MINIMAL["sources"][0]
    if fragment.keys() <= config_fields(Config):
        return {**MINIMAL, **fragment}
    if fragment.keys() == {"token", "password"}:
        return {**MINIMAL, "sources": [
            {**source, "auth": {"kind": "bearer", "token": fragment["token"]}},
            {**source, "name": "b", "auth": {"kind": "basic", "username": "u", "password": fragment["password"]}},
        ]}  # fmt: skip
    return {**MINIMAL, "sources": [{**source, **fragment}]}


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.language == "yaml"]))
def test_every_yaml_is_a_configuration(block: Block, tmp_path: Path) -> None:
    document = yaml.safe_load(block.text)
    if document.keys() == {"groups"}:
        metrics = set(re.findall(r"io_fhir_adapter_\w+", block.text))
        table = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
        assert metrics
        assert [name for name in metrics if f"| `{name}` |" not in table] == []
        return
    path = tmp_path / "facility.yaml"
    if document.keys() <= {"facilities", "operators"}:
        digest, password = "sha256:" + "9f" * 32, Passwords().hash(PASSWORD)
        path.write_text(block.text.replace("sha256:9f86d0…", digest).replace("$argon2id$…", password), encoding="utf-8")
        (tmp_path / "F-001.jwks.json").write_text(here("keys", "new", str(tmp_path / "key.json"))[1], encoding="utf-8")
        assert load_registry(path).facility("F-001") is not None
        return
    path.write_text(yaml.safe_dump(merged(document)), encoding="utf-8")
    load_config(path)


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.language == "python"]))
def test_every_python_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.language == "json"]))
def test_every_json_is_what_it_says(block: Block) -> None:
    document = json.loads(block.text)
    if "resourceType" in document:
        assert resource_problems(document, frozenset({document["resourceType"]})) == ()


def shape(value: Any, path: str = "") -> set[str]:
    """Which elements there are, without what they hold and what every server adds."""
    if isinstance(value, dict):
        inner = (shape(one, f"{path}.{name}") for name, one in value.items() if name not in {"id", "meta", "signature"})
        return {path}.union(*inner)
    return {path}.union(*(shape(one, path) for one in value)) if isinstance(value, list) else {path}


def kind(document: dict[str, Any]) -> str:
    code = document.get("code", {}).get("coding", [{}])[0].get("code", "")
    return f"{document['resourceType']} {document.get('type', '') or code}".strip()


@pytest.mark.xdist_group("manual")
def test_the_interfaces_examples_are_what_sender_and_receiver_really_say(copy_of_the_site: Site) -> None:
    site = copy_of_the_site
    code, _, err = here("withdraw", site.words["3f9a2c"], "--reason", "counted-wrongly", "--config", "hospital.yaml")
    assert code == 0, err
    sent = [json.loads(body) for body in site.sent]
    real = [next(one for one in sent if one["resourceType"] == "Group"), sent[-1]]
    refused = {**json.loads(Path("submission.json").read_text(encoding="utf-8")), "type": "batch"}
    real.append(httpx.post(site.endpoint, json=refused).json())
    answered = json.loads(Path("out/receipt.json").read_text(encoding="utf-8"))
    real.append({**answered, "entry": answered["entry"][:1]})
    frame = next(one["value"] for one in real[0]["identifier"] if one["system"] == FRAME_SYSTEM)
    for identifier in (f"{DRAW_TASK}|{frame}", f"{VERDICT_TASK}|sha256:{site.words['3f9a2c']}"):
        found = httpx.get(f"{site.endpoint}/Task", params={"identifier": identifier}).json()
        real += [entry["resource"] for entry in found["entry"]]
    page = [block for block in BLOCKS if block.page.endswith("submission-interface.md")]
    shown = [json.loads(block.text) for block in page if block.language == "json"]
    assert {kind(one): shape(one) for one in shown} == {kind(one): shape(one) for one in real}


def test_every_block_has_a_class() -> None:
    known = {"yaml", "json", "python", "console", "sh", "bash", *TEXT_ONLY}
    assert [
        f"{block.place}: {block.language or 'no language'}" for block in BLOCKS if block.language not in known
    ] == []
    hidden = [
        block.place for block in BLOCKS if block.language in TEXT_ONLY and re.search(rf"^{PROGRAM} ", block.text, re.M)
    ]
    assert hidden == []


def test_code_is_fenced_so_that_it_is_found() -> None:
    """A block that is made by indentation alone would be read by nobody; the generated pages have nothing else."""
    found = []
    for page in pages():
        if page.name in {"commands.md", "errors.md"}:
            continue
        text = page.read_text(encoding="utf-8")
        for block in blocks_of(page):
            text = text.replace(block.text, "\n")
        found += [f"{page.name}: {line}" for line in re.findall(rf"\n\n    ((?:{PROGRAM}|make|[a-z_]+:).*)", text)]
    assert found == []
