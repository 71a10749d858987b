"""The configuration file: what is refused, in which words, and what the examples say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from io_fhir_adapter.classify.systems import SystemNames
from io_fhir_adapter.config import (
    AuthConfig,
    Config,
    FhirSourceConfig,
    FilesSourceConfig,
    SecretRef,
    SubmissionConfig,
    load_config,
)
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.shipped import shipped_path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
Json = dict[str, Any]


def least() -> Json:
    return {
        "facility": {"code": "F-1"},
        "sources": [{"name": "hospital", "kind": "fhir", "url": "https://fhir.example/r4"}],
    }


def load(folder: Path, document: Json | str) -> Config:
    path = folder / "config.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return load_config(path)


def refused(folder: Path, document: Json | str) -> str:
    """The sentence that refuses it: one line, with the file, what to do and a code."""
    with pytest.raises(ConfigError) as caught:
        load(folder, document)
    sentence = str(caught.value)
    assert str(folder / "config.yaml") in sentence
    assert "\n" not in sentence
    assert "; " in sentence
    assert re.search(r"\[IOA-CFG-\d{3}\]$", sentence)
    assert caught.value.exit_code == 2
    return sentence


def changed(**parts: Any) -> Json:
    return {**least(), **parts}


def with_source(**keys: Any) -> Json:
    return changed(sources=[{**least()["sources"][0], **keys}])


def smart(**keys: Any) -> Json:
    return {"kind": "smart-backend", "client_id": "a", "key": {"env": "KEY"}, **keys}


def test_the_least_configuration_has_safe_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, least())
    source = config.sources[0]
    assert isinstance(source, FhirSourceConfig)
    assert (source.auth.kind, source.trusted_origins, source.since) == ("none", (), None)
    assert (config.programme, config.facility.time_zone, config.submission) == ("iasios", "UTC", None)
    assert (config.ledger.url, config.mappings.site_tables) == (None, ())


def test_a_configuration_cannot_be_changed_once_read(tmp_path: Path) -> None:
    config = load(tmp_path, least())
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, "programme", "other")  # noqa: B010 - the type checker refuses the plain form already


def test_no_case_leaves_by_itself_without_an_approver(tmp_path: Path) -> None:
    endpoint = {"url": "https://a.example", "automatic": True}
    assert "no case leaves without an approver" in refused(tmp_path, changed(submission=endpoint))
    load(tmp_path, changed(submission={**endpoint, "approver": "Head of department"}))
    load(tmp_path, changed(submission={**endpoint, "automatic": "volumes"}))
    load(tmp_path, changed(submission=endpoint, sign_in={"accounts": True}))


@pytest.mark.parametrize(
    ("document", "place", "near"),
    [
        (changed(facilty={}), "facilty", "facility"),
        (changed(facility={"code": "F-1", "timezone": "UTC"}), "facility.timezone", "time_zone"),
        (with_source(pagesize=10), "sources.0.pagesize", "page_size"),
        (with_source(auth={"kind": "bearer", "tokn": {"env": "A"}}), "sources.0.auth.tokn", "token"),
        (changed(ledger={"pth": "a"}), "ledger.pth", "path"),
        (changed(mappings={"site_table": []}), "mappings.site_table", "site_tables"),
        (changed(submission={"url": "https://a.example", "automatik": True}), "submission.automatik", "automatic"),
        (changed(schedule={"crom": "x"}), "schedule.crom", "cron"),
        (changed(review={"keyfile": "a"}), "review.keyfile", "key_file"),
        (changed(scope={"includes": []}), "scope.includes", "include"),
        (
            changed(scope={"include": [{"organisation": "Organization/1"}]}),
            "scope.include.0.organisation",
            "organization",
        ),
        (changed(sources=[{"name": "a", "kind": "files", "path": ["x"]}]), "sources.0.path", "paths"),
        (changed(standing=[{"programme": "iasios", "enroled": "2025-02-03"}]), "standing.0.enroled", "enrolled"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    document: Json, place: str, near: str, tmp_path: Path
) -> None:
    sentence = refused(tmp_path, document)
    assert f"{place} is not a known key" in sentence
    assert f"did you mean '{near}'?" in sentence


def test_an_unknown_key_like_no_other_is_refused_without_a_guess(tmp_path: Path) -> None:
    sentence = refused(tmp_path, changed(qqqqq=1))
    assert "qqqqq is not a known key" in sentence
    assert "did you mean" not in sentence


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"sources": least()["sources"]}, "facility"),
        ({"facility": {"code": "F-1"}}, "sources"),
        (changed(facility={}), "facility.code"),
        (changed(sources=[{"name": "a", "kind": "fhir"}]), "sources.0.url"),
        (changed(sources=[{"kind": "fhir", "url": "https://a.example"}]), "sources.0.name"),
        (changed(sources=[{"name": "a", "kind": "files"}]), "sources.0.paths"),
        (changed(mappings={"site_tables": [{"system": "urn:a"}]}), "mappings.site_tables.0.file"),
    ],
)
def test_what_is_missing_is_named(document: Json, place: str, tmp_path: Path) -> None:
    assert f"{place} is missing" in refused(tmp_path, document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(facility={"code": "a b"}), "facility.code"),
        (changed(facility={"code": "A", "time_zone": "Mars/Olympus"}), "'Mars/Olympus' is no time zone"),
        (changed(sources=[]), "sources"),
        (changed(sources=[*least()["sources"], *least()["sources"]]), "two sources have the same name"),
        (with_source(name="With Space"), "sources.0.name"),
        (with_source(url="ftp://fhir.example"), "sources.0.url"),
        (with_source(url="not a url"), "sources.0.url"),
        (with_source(page_size=0), "sources.0.page_size"),
        (with_source(retries=-1), "sources.0.retries"),
        (with_source(since="2025"), "sources.0.since"),
        (with_source(trusted_origins=["somewhere"]), "sources.0.trusted_origins.0"),
        (with_source(kind="ftp"), "sources.0.kind says no kind of source; write fhir or files"),
        (changed(sources=[{"name": "a", "url": "https://a.example"}]), "sources.0.kind says no kind of source"),
        (with_source(auth={"token": {"env": "A"}}), "kind is none, so nothing would be sent"),
        (with_source(url="https://fhir.example/r4?key=1"), "give the base URL alone"),
        (with_source(auth={"kind": "bearer"}), "bearer needs token"),
        (with_source(auth={"kind": "basic", "username": "u"}), "basic needs username and password"),
        (with_source(auth={"kind": "bearer", "token": {}}), "exactly one of file and env"),
        (
            with_source(auth={"kind": "bearer", "token": {"env": "A"}, "scopes": ["a"]}),
            "scopes has no meaning for kind",
        ),
        (
            with_source(auth={"kind": "client-credentials", "client_id": "a"}),
            "client_secret (a file or an env) and token",
        ),
        (with_source(auth={"kind": "smart-backend"}), "smart-backend needs client_id and key (a file or an env)"),
        (with_source(auth=smart(token_url="http://auth.example/token")), "reached over https"),
        (with_source(auth=smart(token_url="https://u:p@auth.example/token")), "without user name, password"),
        (with_source(auth=smart(scopes=["a b"])), "each scope as an entry"),
        (with_source(auth=smart(algorithm="HS256")), "sources.0.auth.algorithm"),
        (with_source(client_key_file="key.pem"), "client_cert_file"),
        (with_source(proxy="http://u:p@proxy.example:3128"), "proxy_password"),
        (with_source(proxy="http://proxy.example:3128", proxy_username="u"), "or neither"),
        (with_source(proxy_username="u", proxy_password={"env": "A"}), "without proxy"),
        (with_source(auth={"kind": "bearer", "token": {"env": "A", "file": "b"}}), "exactly one of file and env"),
        (changed(sources=[{"name": "a", "kind": "files", "paths": []}]), "sources.0.paths"),
        (changed(ledger={"url": "postgresql://user:word@host/db"}), "name it under ledger.password"),
        (changed(schedule={"cron": "30 2 * *"}), "five fields"),
        (changed(submission={"url": "https://a.example", "give_up_after_days": 0}), "submission.give_up_after_days"),
        (
            changed(scope={"exclude": [{"organization": "Location/1"}]}),
            "scope.exclude.0.organization: write Organization/ID, or system|value of an identifier",
        ),
        (
            changed(scope={"include": [{"location": "Location/1"}, {"performer": "7"}]}),
            "scope.include.1.performer: write Practitioner/ID or PractitionerRole/ID, or system|value",
        ),
        (changed(scope={"include": [{"service_category": "394914008"}]}), "system|value of a coding"),
        (changed(scope={"include": [{"location": "urn:rooms|"}]}), "nothing stands behind the |"),
        (changed(scope={"include": [{"location": 7}]}), "scope.include.0.location"),
        (changed(scope={"include": {"location": "Location/1"}}), "scope.include"),
        (changed(scope={"include": [{}]}), "scope.include.0: name at least one of organization, location"),
        (changed(scope={"when_unknown": "maybe"}), "scope.when_unknown"),
        (changed(standing=[{"programme": "iasios", "approved": 2025}]), "standing.0.approved: write the day as"),
        (changed(standing=[{"programme": "iasios", "enrolled": "3.2.2025"}]), "standing.0.enrolled: write the day as"),
        (changed(standing=[{"programme": "iasios"}] * 2), "standing names a programme twice"),
        (
            changed(standing=[{"programme": "a", "enrolled": "2025-02-03", "accredited": "2025-01-01"}]),
            "standing.0: accredited lies before enrolled",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(document: Json, words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, document)


def test_a_secret_written_into_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for keys in ({name: "canary-4711"} for name in ("token", "password", "client_secret", "key", "key_password")):
        sentence = refused(tmp_path, with_source(auth={"kind": "bearer", **keys}))
        assert "canary-4711" not in sentence
        assert "named here, never written" in sentence
    for document in (
        changed(ledger={"url": "postgresql://user:canary-4711@host/db"}),
        with_source(url="https://user:canary-4711@fhir.example/r4"),
        with_source(trusted_origins=["https://user:canary-4711@fhir.example"]),
        changed(submission={"url": "https://canary-4711@accreditation.example"}),
    ):
        assert "canary-4711" not in refused(tmp_path, document)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "- a list\n", "just words\n"])
def test_a_file_without_settings_is_refused(text: str, tmp_path: Path) -> None:
    assert "start from one of the examples in config/" in refused(tmp_path, text)


@pytest.mark.parametrize("text", ["facility:\n\tcode: A\n", "a: [1, 2\nb: 3\n", "a: !!python/object:os.system {}\n"])
def test_what_is_no_yaml_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml:\d+: the configuration is not valid YAML"):
        load(tmp_path, text)


@pytest.mark.parametrize("text", ["a: 2025-13-45\n", f"a: {'[' * 5000}\n"])
def test_yaml_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, text)


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = yaml.safe_dump(least()) + "programme: iasios\nprogramme: other\n"
    with pytest.raises(ConfigError, match=r"config\.yaml:\d+: a key is written twice; keep one"):
        load(tmp_path, text)


def test_yaml_anchors_and_merges_work(tmp_path: Path) -> None:
    server = "kind: fhir, url: 'https://a.example'"
    text = f"facility: {{code: A}}\nsources:\n- &one {{name: a, {server}}}\n- {{<<: *one, name: b}}\n"
    assert [source.name for source in load(tmp_path, text).sources] == ["a", "b"]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"facility: {code: \xff\xfe}\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: the configuration file cannot be read; check the path"):
        load_config(tmp_path / "absent.yaml")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    document = changed(
        sources=[
            {**least()["sources"][0], "ca_file": "ca.pem", "auth": {"kind": "bearer", "token": {"file": "token"}}},
            {"name": "export", "kind": "files", "paths": ["export", "more/*.ndjson", "/abs", "-"]},
        ],
        mappings={"site_tables": [{"system": "urn:a", "file": "codes.csv"}]},
        ledger={"path": "data/ledger.sqlite"},
        review={"key_file": "data/key"},
        output={"folder": "out"},
    )
    config = load(tmp_path, document)
    server, export = config.sources
    assert isinstance(server, FhirSourceConfig)
    assert isinstance(export, FilesSourceConfig)
    assert server.ca_file == tmp_path / "ca.pem"
    assert server.auth.token is not None
    assert server.auth.token.file == tmp_path / "token"
    assert export.paths == (str(tmp_path / "export"), str(tmp_path / "more/*.ndjson"), "/abs", "-")
    assert config.mappings.site_tables[0].file == tmp_path / "codes.csv"
    assert config.ledger.path == tmp_path / "data" / "ledger.sqlite"
    assert config.review.key_file == tmp_path / "data" / "key"
    assert config.output.folder == tmp_path / "out"


def test_the_default_paths_are_relative_to_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for document in (least(), changed(ledger={}, review={}, output={})):
        config = load(tmp_path, document)
        assert config.ledger.path == tmp_path / "ledger.sqlite"
        assert config.review.key_file == tmp_path / "pseudonym.key"
        assert config.output.folder == tmp_path / "out"


def test_a_form_is_a_file_beside_the_configuration_or_an_address(tmp_path: Path) -> None:
    assert load(tmp_path, least()).review.questionnaire is None
    assert load(tmp_path, changed(review={"questionnaire": "f.json"})).review.questionnaire == str(tmp_path / "f.json")
    url = "https://body.example/fhir/Questionnaire/cases"
    assert load(tmp_path, changed(review={"questionnaire": url})).review.questionnaire == url


def test_a_programme_is_a_name_or_a_file_beside_the_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, changed(programme="iasios")).programme == "iasios"
    assert load(tmp_path, changed(programme="ours.yaml")).programme == str(tmp_path / "ours.yaml")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"location": "https://his.example/fhir/Location/7"}, {"location": "Location/7"}),
        ({"location": " Location/7 "}, {"location": "Location/7"}),
        ({"organization": "urn:uuid:5f"}, {"organization": "Organization/5f"}),
        ({"organization": "urn:ik|77"}, {"organization": "urn:ik|77"}),
        ({"performer": "Organization/1"}, {"performer": "Organization/1"}),
        ({"service_category": "HealthcareService/1"}, {"service_category": "HealthcareService/1"}),
        ({"practitioner_role": "PractitionerRole/1"}, {"practitioner_role": "PractitionerRole/1"}),
    ],
)
def test_a_scope_names_references_and_tokens_in_one_form(written: Json, read: Json, tmp_path: Path) -> None:
    config = load(tmp_path, changed(scope={"include": [written]}))
    assert [dict(rule.asks) for rule in config.scope.include] == [read]
    assert config.scope.when_unknown == "review"


def test_a_date_without_quotes_is_a_date(tmp_path: Path) -> None:
    text = yaml.safe_dump(with_source(since="DAY")).replace("DAY", "2024-01-01")
    source = load(tmp_path, text).sources[0]
    assert isinstance(source, FhirSourceConfig)
    assert source.since == "2024-01-01"


def test_the_base_url_has_no_trailing_slash(tmp_path: Path) -> None:
    source = load(tmp_path, with_source(url="https://fhir.example/r4/")).sources[0]
    assert isinstance(source, FhirSourceConfig)
    assert source.base_url == "https://fhir.example/r4"


def test_a_secret_is_read_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(" from-file\n", encoding="utf-8")
    monkeypatch.setenv("IO_TEST_TOKEN", "from-env")
    assert SecretRef(file=tmp_path / "token").read("auth") == "from-file"
    assert SecretRef(env="IO_TEST_TOKEN").read("auth") == "from-env"


@pytest.mark.parametrize("kind", ["absent file", "empty file", "binary file", "absent variable", "empty variable"])
def test_a_secret_that_is_not_there_is_named_by_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    if kind == "empty file":
        path.write_text(" \n", encoding="utf-8")
    elif kind == "binary file":
        path.write_bytes(b"\xff\xfe\x00")
    monkeypatch.delenv("IO_TEST_TOKEN", raising=False)
    if kind == "empty variable":
        monkeypatch.setenv("IO_TEST_TOKEN", " ")
    secret = SecretRef(env="IO_TEST_TOKEN") if kind.endswith("variable") else SecretRef(file=path)
    place = "environment variable IO_TEST_TOKEN" if kind.endswith("variable") else str(path)
    with pytest.raises(ConfigError, match=re.escape(f"sources.a: the secret in {place} ")) as caught:
        secret.read("sources.a")
    assert caught.value.code == "IOA-CFG-003"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_annotated_and_names_no_real_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    hosts = re.findall(r"(?:https?|postgresql\+psycopg)://(?:[^/@\s]*@)?([^/:\s]+)", text)
    assert hosts
    assert [host for host in hosts if not host.endswith(".example") and "." in host] == []


def test_an_example_maps_local_codes_under_a_system_of_its_own() -> None:
    systems = SystemNames.load(shipped_path("mappings", "systems.csv"))
    tables = [table for path in EXAMPLES for table in load_config(path).mappings.site_tables]
    assert tables
    assert [table.system for table in tables if systems.name(table.system)] == []


def keys_of(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """Every key of a model with its default, as the manual writes it."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        many, inner = models_in(field.annotation)
        name = field.alias or name  # noqa: PLW2901 - as it stands in the file
        place = f"{prefix}{name}{'[]' if many and inner else ''}"
        default = field.get_default(call_default_factory=True, validated_data={})
        # a secret is one value; another way to sign in has the keys of the first
        if not inner or inner == [SecretRef] or (inner == [AuthConfig] and default is None):
            found[f"{prefix}{name}"] = default
            continue
        for model_inside in inner:
            found |= keys_of(model_inside, f"{place}.")
    return found


def models_in(annotation: Any) -> tuple[bool, list[type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return False, [annotation]
    inside = [models_in(argument) for argument in get_args(annotation)]
    many = get_origin(annotation) is tuple or any(found for found, _ in inside)
    return many, [model for _, models in inside for model in models]


def as_written(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if value in ((), ""):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def test_the_manual_lists_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    listed = {row[0].strip().strip("`"): row[1].strip() for row in rows}
    both = FhirSourceConfig.model_fields.keys() & SubmissionConfig.model_fields.keys() - {"url"}
    http = {name for name in listed if name.split(".")[0] in both}
    known = keys_of(Config, "")
    spoken_of = set()
    for name, default in known.items():
        shared = re.sub(r"^(sources\[\]|submission)\.", "", name)
        place = shared if shared in http else name
        assert place in listed, f"{name} is not in the manual"
        spoken_of.add(place)
        if name != "sources[].kind":  # `fhir` by default in the code, but a source always says what it is
            assert listed[place] == as_written(default), name
    assert set(listed) - spoken_of <= {"mappings.site_tables", "mappings.concept_maps"}
