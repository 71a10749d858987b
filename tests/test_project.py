"""What holds for the project as a whole: its files, its wheel, its manual."""

from __future__ import annotations

import ast
import csv
import fnmatch
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.conftest import script

from io_fhir_adapter.classify import concept_maps, scope, tables
from io_fhir_adapter.classify.indications import KINDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "io_fhir_adapter"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=str)

# Written so that this file does not match its own patterns.
REGISTRIES = re.compile(
    r"py[p]i\.(?:org|python)|python[h]osted|registry\.[n]pmjs|registry\.[y]arnpkg|--?(?:extra-)?inde[x]-url"
    r"|--find-link[s]|--trusted-hos[t]|artifactor[y]|\bnexu[s]\b|/simpl[e]/|proxy\.golan[g]|conda\.anacond[a]",
    re.IGNORECASE,
)
LOCK_FILES = {
    "poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "package-lock.json", "npm-shrinkwrap.json",
    "yarn.lock", "pnpm-lock.yaml", "bun.lockb", "Cargo.lock",
}  # fmt: skip


def ignored() -> list[str]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def project_files() -> Iterator[Path]:
    """Every file of the project; what .gitignore names is none."""
    patterns = [*ignored(), ".git"]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(n for n in folders if not any(fnmatch.fnmatch(n, pattern) for pattern in patterns))
        yield from (Path(folder, n) for n in sorted(names) if not any(fnmatch.fnmatch(n, p) for p in patterns))


def test_no_file_names_a_package_registry() -> None:
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in REGISTRIES.finditer(text)]
    assert found == []


def test_there_is_no_lock_file() -> None:
    assert [str(path) for path in project_files() if path.name in LOCK_FILES] == []


def test_constraints_pin_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    odd = [
        line for line in lines if not line.startswith("#") and not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^ ;@]*", line)
    ]
    assert odd == []


def test_constraints_pin_what_the_project_needs() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines) if v}
    for text in [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]:
        need = Requirement(text)
        assert canonicalize_name(need.name) in pins, f"{need.name} has no pin"
        assert need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True), text


def test_every_module_says_what_it_is_for_and_what_it_offers() -> None:
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(PACKAGE).as_posix()
        if not ast.get_docstring(module):
            silent.append(f"{name}: no docstring")
        targets = [
            target
            for node in module.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        ]
        offers = any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
        # a migration is called by Alembic, which wants names of its own; an empty package offers nothing
        if not offers and len(module.body) > 1 and not name.startswith("ledger/migrations/"):
            silent.append(f"{name}: no __all__")
    assert silent == []


def test_modules_stay_short() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n") for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 420} == {}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_code_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"io_fhir_adapter/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for folder in ("mappings", "config"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        wanted |= {f"io_fhir_adapter/_data/{path.relative_to(ROOT).as_posix()}" for path in files}
    assert wanted - names == set()
    assert any(name.endswith(".j2") for name in names)
    assert any(name.startswith("io_fhir_adapter/receiver/templates/") for name in names)
    assert any(name.startswith("io_fhir_adapter/ledger/migrations/versions/v0001") for name in names)
    assert "io_fhir_adapter/py.typed" in names


def test_the_wheel_has_a_licence_and_a_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    about = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
    assert b"Apache License" in archive.read(f"{about}/licenses/LICENSE")
    assert b"io-fhir-adapter = io_fhir_adapter.cli.main:main" in archive.read(f"{about}/entry_points.txt")
    assert b"License-Expression: Apache-2.0" in archive.read(f"{about}/METADATA")


def test_an_installed_wheel_finds_its_tables_and_opens_a_ledger(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = """
import sys
from pathlib import Path
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.config import LedgerConfig, load_config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.shipped import shipped_path
assert shipped_path("mappings").is_relative_to(sys.argv[1]), shipped_path("mappings")
assert "ops" in load_ruleset().table_systems
load_config(shipped_path("config", "minimal.yaml"))
open_ledger(LedgerConfig(path=Path(sys.argv[1]) / "ledger.sqlite")).close()
"""
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_manuals_error_table_is_that_of_the_code() -> None:
    errors = script("error_table.py")
    manual = errors.table_in(errors.MANUAL.read_text(encoding="utf-8"))
    assert manual == errors.table(errors.error_sites()), "run make docs"


def test_the_manuals_page_of_commands_is_what_the_commands_say() -> None:
    commands = script("command_reference.py")
    assert commands.MANUAL.read_text(encoding="utf-8") == commands.page(), "run make docs"


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ([{"name": "a", "skip_reason": "not found"}], 0, "not audited"),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "x"}], 0, "1 packages"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}], 1, "a 1: PYSEC-1"),
        ([], 0, "not audited"),
    ],
)
def test_the_audit_fails_for_known_vulnerabilities_alone(found: list[dict[str, object]], code: int, words: str) -> None:
    said = script("audit_dependencies.py").verdict(found)
    assert said[0] == code
    assert words in said[1]


def test_the_error_table_reads_numbers_through_helpers(tmp_path: Path) -> None:
    errors = script("error_table.py")
    (tmp_path / "module.py").write_text(
        "from io_fhir_adapter.errors import PullError, SubmitError\n"
        "def refused(what, number=1):\n"
        "    return SubmitError(what, do='stop', number=number)\n"
        "def one(n):\n"
        "    raise refused(f'page {n}')\n"
        "def two(bad):\n"
        "    what, number = 'the first', 7\n"
        "    raise PullError(what, number=number, transient=bad)\n"
        "raise refused('the second', number=9)\n",
        encoding="utf-8",
    )
    sites = errors.error_sites(tmp_path)
    assert [(site.code, site.what, site.do, site.transient) for site in sites] == [
        ("IOA-PUL-007", "the first", "", "it depends"),
        ("IOA-SUB-001", "page …", "stop", "no"),
        ("IOA-SUB-009", "the second", "stop", "no"),
    ]


def table_rows(page: str, begin: str = "", end: str = "") -> list[list[str]]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if begin:
        text = text[text.index(begin) : text.index(end)]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_manual_lists_every_reason_code_that_a_decision_can_have() -> None:
    listed = {
        row[0].strip("`"): row[1] for row in table_rows("counting.md", "<!-- reasons: begin", "<!-- reasons: end")
    }
    reasons = set(listed) - {"reason", "---"}
    decide = ast.parse((PACKAGE / "classify" / "decide.py").read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(decide) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words |= {concept_maps.INEXACT, scope.OUT_OF_SCOPE, scope.SCOPE_UNKNOWN}
    rules = yaml.safe_load((ROOT / "mappings" / "session-rules.yaml").read_text(encoding="utf-8"))["rules"]
    given_by_rules = {rule["review"] for rule in rules if "review" in rule}
    # every reason is written out in the code or in a rule; a hyphenated word of the code is one unless named here
    others = {"not-counted", "add-on", "drug-loaded-particles", "bleeding-embolisation"}
    written = {word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)+", word)} - others
    assert written | given_by_rules <= reasons <= words | given_by_rules
    assert {listed[reason] for reason in reasons} == {"counted", "review", "not-counted"}


def test_the_mapping_handbook_explains_every_word_of_the_tables() -> None:
    page = (ROOT / "docs" / "mapping-handbook.md").read_text(encoding="utf-8")
    words = {*tables.SITES, *tables.APPROACHES, *tables.AGENTS, *tables.ROLES, *tables.INDICATIONS, *KINDS} - {""}
    assert sorted(word for word in words if f"`{word}`" not in page) == []
    assert ",".join(tables.COLUMNS) in page


def test_every_relative_link_of_the_manual_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_category_is_in_the_programme() -> None:
    with (ROOT / "mappings" / "categories.csv").open(encoding="utf-8", newline="") as handle:
        codes = {row["code"] for row in csv.DictReader(handle)}
    text = (ROOT / "mappings" / "programmes" / "iasios.yaml").read_text(encoding="utf-8")
    assert {code for code in codes if not re.search(rf"^  {code}: ", text, re.MULTILINE)} == set()


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="fine"/>
<testcase classname="tests.a" name="known"><skipped type="pytest.xfail" message="known"/></testcase>
{skips}
</testsuite></testsuites>"""


def skip(reason: str) -> str:
    return f'<testcase classname="tests.a" name="left_out"><skipped type="pytest.skip" message="{reason}"/></testcase>'


@pytest.mark.parametrize(
    ("reason", "beside", "code"),
    [
        ("the OPS 2023 code list is absent", False, 0),
        ("the OPS 2023 code list is absent", True, 1),
        ("could not import 'duckdb'", False, 1),
        ("chromium is not installed", True, 1),
    ],
)
def test_only_data_that_really_is_absent_excuses_a_skip(
    reason: str, beside: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, shared = tmp_path / "report.xml", tmp_path / "shared"
    report.write_text(REPORT.format(skips=skip(reason)), encoding="utf-8")
    if beside:
        shared.mkdir()
    assert script("check_skips.py").main(report, shared) == code
    assert ("left_out" in capsys.readouterr().err) == bool(code)


def test_a_report_without_skips_is_fine(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(skips=""), encoding="utf-8")
    assert script("check_skips.py").main(report, tmp_path) == 0
