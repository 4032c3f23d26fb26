"""What errors say to people and programs: one line, a kind that lasts, what is wrong, what to do, and a page that explains it."""

from pathlib import Path

import pytest

from console import problems
from console.documentation import errors_markdown
from core.errors import CandlelakeError, NotFoundError, StoreFullError, TransientError


@pytest.mark.parametrize(("path", "status", "kind"), [
    ("/api/connections/nobody", 404, "E-NOT-FOUND"), ("/api/connections/anns/candles?symbol=BTC/USD&timeframe=1m&limit=0", 422, "E-INPUT"),
    ("/api/connections/anns/candles?symbol=BTC/USD&timeframe=1m&start=never", 422, "E-INPUT"), ("/api/nothing", 404, "E-NO-PAGE"),
    ("/api/udf/symbols?symbol=anns:NOTHING", 404, "E-NOT-FOUND"), ("/metrics", 403, "E-NOT-PERMITTED")])
async def test_an_error_has_id_cause_fix_and_a_page(browser, token, path, status, kind):
    """The id is the kind's, the page that it names explains it, and cause and fix are both said."""
    http = browser().http
    answer = await http.get(path, headers=token("ann"))
    told = answer.json()
    assert (answer.status_code, told["id"]) == (status, kind)
    assert told["error"].startswith(told["cause"])
    assert told["fix"]
    page, _, place = told["docs"].partition("#")
    assert f'id="{place}"' in (await http.get(page)).text


async def test_nobody_and_foreign_hosts_are_told_too(browser, feed):
    """Answers from before the routes have an id as well."""
    http = browser().http
    assert (await http.get("/api/connections")).json()["id"] == "E-SIGN-IN"
    assert (await http.get("/api/connections", headers={"host": "evil.example"})).json()["id"] == "E-HOST"
    assert (await http.post("/login", content=b"x" * 2_000_000)).status_code == 413
    text = (await http.get("/nothing")).text
    assert "E-NO-PAGE" in text


async def test_who_is_refused_what_is_in_the_log(browser, token, caplog):
    """A door of admins and somebody else's connection leave a line with the name of whoever asked; what is absent leaves none."""
    caplog.set_level("WARNING", "candlelake.console")
    http = browser().http
    for path in ("/metrics", "/api/connections/bobs", "/api/connections/absent"):
        assert (await http.get(path, headers=token("ann"))).status_code in {403, 404}
    lines = [record.getMessage() for record in caplog.records if record.name == "candlelake.console"]
    assert len(lines) == 2
    assert "GET /metrics by ann" in lines[0]
    assert "ann asked by api for connection bobs" in lines[1]


def _subclasses(error):
    yield error
    for inner in error.__subclasses__():
        yield from _subclasses(inner)


def test_every_error_has_a_kind_and_every_kind_is_written_down():
    """Each class of core/errors.py is answered by a kind of its own or its parent's; docs/errors.md holds all, as the console shows them."""
    for error in _subclasses(CandlelakeError):
        kind = problems.kind_of(error.__new__(error))
        assert (kind.status == 503) == (issubclass(error, TransientError) and kind.status != 429), error
    assert problems.kind_of(NotFoundError("x")).id != problems.kind_of(StoreFullError("x")).id
    ids = [kind.id for kind in problems.all_kinds()]
    assert len(set(ids)) == len(ids)
    written = Path(__file__).parents[2] / "docs" / "errors.md"
    assert written.read_text(encoding="utf-8") == errors_markdown()
