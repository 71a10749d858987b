"""Mapping coverage: what is seen and lacking, and how proposed rows get into the site's own table, by whom."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from tests.serve.house import LOCAL, NOW, House, house_in, words

from io_fhir_adapter.classify.ruleset import rules_for, rules_now
from io_fhir_adapter.classify.workbench import site
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.serve.nights import Nights
from io_fhir_adapter.serve.pages import coverage_seen, figures
from io_fhir_adapter.serve.pages.figures import Figures
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.shipped import shipped_path

Open = Callable[..., House]


@pytest.fixture
def opened(tmp_path: Path, hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a facility of one's own; the codes are waited for, however busy the machine is."""
    monkeypatch.setattr(coverage_seen, "_PATIENCE_S", 60.0)
    made: list[Any] = []

    def open_house(**mappings: Any) -> House:
        made.append(house_in(tmp_path / f"house-{len(made)}", hasher, **mappings))
        house: House = made[-1].__enter__()
        return house

    yield open_house
    for one in made:
        one.__exit__(None, None, None)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, hasher: PasswordHasher) -> Iterator[House]:
    """One whose table every test leaves as it was."""
    with pytest.MonkeyPatch.context() as patch, house_in(tmp_path_factory.mktemp("house"), hasher) as made:
        patch.setattr(coverage_seen, "_PATIENCE_S", 60.0)
        yield made


def tokens(house: House) -> dict[str, str]:
    """Code to what its box stands for."""
    page = house.page("/coverage", "adler")
    rows = re.findall(r'<th role="rowheader"[^>]*><code>([^<]+)</code>.*?</tr>', page, re.DOTALL)
    parts = page.split('<th role="rowheader"')[1:]
    found = {code: re.search(r'name="row" value="([0-9a-f]+)"', part) for code, part in zip(rows, parts, strict=True)}
    return {code: match[1] for code, match in found.items() if match is not None}


def accept(house: House, *chosen: str) -> Any:
    return house.at("adler").fill("/coverage", {"row": list(chosen)}, "/coverage/accept")


def test_everybody_sees_what_the_tables_know_and_lack_and_administrators_alone_may_choose(house: House) -> None:
    for account in ("vogt", "weber", "lang", "adler"):
        text = house.text("/coverage", account)
        assert "78 % 63 of 81 completed procedures" in text
        assert "Mikrowellenablation Leber" in text
        assert "Erika" not in text  # fewer than five patients share it
        assert re.search(r"Patient/|prc-|pat-", house.page("/coverage", account)) is None
        assert ("take it" in text) == (account == "adler")
    assert re.search(r"R-7 site:ris Mikrowellenablation Leber 6 Procedures Microwave ablation", text) is not None
    assert "R-9 site:ris its display is shown once five patients share it 6 Procedures no proposal" in text
    assert "5-501.a3 ops 3" in house.text("/coverage?show=mapped")
    assert "Every code has a row" in house.text("/coverage?show=other&page=7")
    assert "Eigene" not in house.text("/coverage", headers={"Accept-Language": "de"})
    assert "Mit einer Zeile in den Tabellen" in house.text("/coverage", headers={"Accept-Language": "de"})


def test_an_accepted_row_is_in_the_table_and_asked_by_the_next_night(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_PATIENCE_S", 60.0)
    house = opened()
    house.table.chmod(0o640)
    before, old = house.table.read_bytes(), rules_for(house.config)
    answer = accept(house, tokens(house)["R-7"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/coverage?done=1&page=1")
    after = house.table.read_text(encoding="utf-8")
    assert after.startswith(before.decode())
    assert after.splitlines()[-1].startswith("R-7,microwave,liver,")
    assert house.table.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in house.table.parent.iterdir()] == ["ris.csv"]
    agent, action, entity, detail = house.audit()[-1]
    assert (agent, action, entity) == ("adler", "U", "Mappings/ris.csv")
    assert re.fullmatch(r"rows accepted: 1; now sha256:\w{17}, before sha256:\w{17}; R-7", detail)
    said = house.text("/coverage?done=1", "adler")
    assert "The next night decides on everyone with it" in said
    assert "asked from the next night on" in said
    assert "The tables were changed since the last night" in house.text("/coverage")
    assert list(tokens(house)) == ["R-8"]
    counted = house.text("/decisions?category=ablation-mwa&reason=text-only")
    assert "1 to 6 of 6" in counted  # still decided as the last night did
    assert rules_now(house.config, old).entry(LOCAL, "R-7").rows
    restarted = Figures(View(house.web, rules_for(house.config), date(2026, 1, 30))).years()
    assert restarted is not None  # the last night's numbers, and they are said to be
    assert (restarted.outdated, restarted.last[0].review) == (True, 6)
    house.decide()
    assert "No decision is like that" in house.text("/decisions?category=ablation-mwa&reason=text-only")
    assert "asked from the next night on" not in house.text("/coverage", "adler")
    assert "The tables were changed" not in house.text("/coverage")


def test_a_night_takes_the_tables_as_they_are_then(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    house = opened()
    old = rules_for(house.config)
    used: list[str] = []

    async def run(job: Nightly, **_how: object) -> None:
        used.append(job.ruleset.digest)
        raise MappingError("stop")

    monkeypatch.setattr(Nightly, "run", run)
    nights = Nights(house.config, house.ledger, old, lambda _: None, lambda: NOW)
    for _ in range(2):
        asyncio.run(nights.night(lambda *_: None))
        house.table.write_text(house.table.read_text().replace("R-1,", "R-2,"))
    assert used[0] == old.digest
    assert used[1] != old.digest
    assert rules_now(house.config, old) is not old
    assert rules_now(house.config, fresh := rules_for(house.config)) is fresh


def test_two_people_at_once_lose_no_row(opened: Open) -> None:
    house = opened()
    chosen = tokens(house)
    token, client = house.at("adler").token("/coverage"), house.at("adler")._client

    async def both() -> list[int]:
        forms = [{"csrf": token, "row": [chosen[code]]} for code in ("R-7", "R-8", "R-7")]
        answers = await asyncio.gather(*(client.post("/coverage/accept", data=form) for form in forms))
        return sorted(answer.status_code for answer in answers)

    assert house.runner.run(both()) == [303, 303, 422]
    written = house.table.read_text(encoding="utf-8").splitlines()
    assert sorted(line.partition(",")[0] for line in written[1:]) == ["R-1", "R-7", "R-8"]
    assert sum(one[2] == "Mappings/ris.csv" for one in house.audit()) == 2


def test_what_is_not_proposed_is_not_written(house: House) -> None:
    before, box = house.table.read_bytes(), tokens(house)["R-7"]
    for chosen, said in (([], "Nothing was chosen"), ([box, "0" * 24], "nothing was written")):
        answer = accept(house, *chosen)
        assert answer.status_code == 422
        assert said in words(answer.text)
    for account in ("vogt", "weber", "lang"):
        form = {"csrf": house.at(account).token("/coverage"), "row": [box]}
        assert house.at(account).post("/coverage/accept", form).status_code == 403
    assert house.at("adler").post("/coverage/accept", {"row": [box]}).status_code == 403
    assert house.table.read_bytes() == before


def test_a_table_that_cannot_be_used_or_written_stays_as_it_is_and_the_page_says_why(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, good = tokens(house)["R-7"], house.table.read_bytes()

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(site, "write_whole", full)
        answer = accept(house, box)
    assert answer.status_code == 422
    assert "cannot be written (OSError)" in words(answer.text)
    assert house.table.read_bytes() == good
    broken = good + b"R-6,microwaves,liver,percutaneous,none,main,expected,,,typed by hand,list,\n"
    house.table.write_bytes(broken)
    assert "the next night would fail: ris.csv:3: 'microwaves' is no technique" in house.text("/coverage")
    noted = len(house.audit())
    answer = accept(house, box)
    assert answer.status_code == 422
    assert "did you mean 'microwave'?" in words(answer.text)
    assert (house.table.read_bytes(), len(house.audit())) == (broken, noted)
    house.table.write_bytes(good)


def test_without_a_table_of_its_own_the_page_says_what_to_configure(opened: Open) -> None:
    shipped = shipped_path("config", "sandbox-local-codes.csv")
    tried: list[list[dict[str, str]]] = [[], [{"system": LOCAL, "file": str(shipped)}]]
    for tables in tried:
        house = opened(site_tables=tables)
        page = house.page("/coverage", "adler")
        assert "The configuration names no table of your own" in words(page)
        assert f'system: "{LOCAL}"' in page
        assert 'name="row"' not in page
    with pytest.raises(MappingError, match="comes with this program"):
        site.take_rows(house.config.mappings.site_tables[0], [], NOW.date())
