"""Lists of many connections: pages, words, states; the same ones by page and API, and never somebody else's."""

import re

import pytest

from connections.service import ConnectionInput

COUNT = 120


@pytest.fixture
def crowd(feed):
    """A hundred and twenty more connections of the house, every third at another provider and every fourth switched off."""
    for number in range(COUNT):
        feed.connections.create(ConnectionInput(
            slug=f"venue-{number:03}", name=f"Venue No {number}", provider="ccxt:binance" if number % 3 else "ccxt:coinbase", owner="root",
            is_admin_owned=True, symbols=("BTC/USD",), timeframes=("1m",), is_active=number % 4 != 0))
    return feed


def slugs(text):
    """Return the connections of a page's table, from above."""
    return re.findall(r'<th scope="row"><a href="/connections/([^"]+)"', text)


async def test_a_list_of_many_has_pages(browser, crowd):
    """Fifty to a page, by slug, each once; links lead on and back and keep what is asked for; past the end is the last page."""
    boss = browser()
    await boss.sign_in("root")
    seen, path = [], "/connections"
    for _ in range(3):
        text = (await boss.get(path)).text
        seen += slugs(text)
        found = re.search(r'href="([^"]+)" rel="next"', text)
        path = f"/connections{found.group(1)}".replace("&amp;", "&") if found else None
    assert path is None
    assert seen == ["anns", "bobs", "house", *(f"venue-{number:03}" for number in range(COUNT))]
    assert "Page 3 of 3, 123 connections" in text
    assert slugs((await boss.get("/connections?page_number=99")).text) == seen[100:]
    narrow = (await boss.get("/connections?query=venue+binance&page_number=2")).text
    assert "Page 2 of 2, 80 connections" in narrow
    assert "query=venue+binance" in re.search(r'href="([^"]+)" rel="prev"', narrow).group(1)


async def test_connections_are_found_by_words_and_state(browser, token, crowd):
    """Words of slug, name, provider and owner, whatever the case, and how they fare: the page and the API find the same."""
    boss, http, root = browser(), browser().http, token("root")
    await boss.sign_in("root")
    for query, wanted in (
            ("query=NO+117", ["venue-117"]), ("query=ann", ["anns"]), ("query=bob+kraken", ["bobs"]), ("query=nowhere", []),
            ("health=inactive&query=coinbase", [f"venue-{number:03}" for number in range(0, COUNT, 12)]),
            ("health=error", []), ("health=stale&query=anns", ["anns"])):
        answer = await http.get(f"/api/connections?{query}", headers=root)
        assert [row["slug"] for row in answer.json()] == wanted, query
        text = (await boss.get(f"/connections?{query}")).text
        assert slugs(text) == wanted, query
        assert ("No connection of yours matches" in text) == (not wanted)
    assert (await boss.get("/connections?health=fine")).status_code == 422
    assert (await http.get("/api/connections?health=fine", headers=root)).status_code == 422


async def test_the_api_gives_as_many_as_are_asked_for(browser, token, crowd):
    """All without a limit; with limit and skip page after page, and nothing past the end."""
    http, root = browser().http, token("root")
    every = [row["slug"] for row in (await http.get("/api/connections", headers=root)).json()]
    assert len(every) == COUNT + 3
    pages = []
    while rows := (await http.get(f"/api/connections?limit=50&skip={len(pages)}", headers=root)).json():
        pages += [row["slug"] for row in rows]
    assert pages == every


async def test_no_search_finds_somebody_elses(browser, token, crowd):
    """Ann finds her own by each of its words, and nothing of bob's or the house's, however she asks."""
    http, ann = browser().http, token("ann")
    for query in ("", "query=kraken", "query=venue", "query=root", "query=bobs", "health=inactive", "health=stale", "limit=1000"):
        found = [row["slug"] for row in (await http.get(f"/api/connections?{query}", headers=ann)).json()]
        assert set(found) <= {"anns"}, query
    one = browser()
    await one.sign_in("ann")
    assert slugs((await one.get("/connections?query=o")).text) == []
