"""Notifications go out once by each channel, are tried again when they fail, and tell nobody who should not know."""

import hashlib
import hmac
import json
import socket
from datetime import timedelta

import pytest
from pydantic import SecretStr

from connections.rows import notify, read_connection
from connections.service import ConnectionInput
from core.clock import ManualClock, parse_instant
from core.errors import InputError, NotFoundError
from core.settings import Settings
from feed import notices, open_feed
from feed.notice_channels import channels_of
from feed.notices import TRIES, acknowledge, list_notices, send_notices, send_trial, tell_pipeline
from storage import people
from tests.feed.receivers import mail_server, webhook_receiver


@pytest.fixture(scope="module")
def mail():
    """A mail server and its port."""
    with mail_server() as served:
        yield served


@pytest.fixture(scope="module")
def hook():
    """A webhook receiver and its port."""
    with webhook_receiver() as served:
        yield served


@pytest.fixture
def home(tmp_path, mail, hook):
    """A home with both channels, ann's connection, and ann's verified address."""
    mail[0].__init__()
    hook[0].__init__()
    settings = Settings(
        _env_file=None, home=tmp_path, key_file=tmp_path / "keys", allow_private_hosts=True,
        smtp_url=f"smtp://127.0.0.1:{mail[1]}", notify_email="ops@example.org, duty@example.org", notify_from="lake@example.org",
        notify_webhook_url=f"http://127.0.0.1:{hook[1]}/in?token=canary", notify_webhook_secret="shared", console_url="https://c.example")
    with open_feed(settings, ManualClock(parse_instant("2026-01-05T12:00:00Z"))) as feed:
        with feed.lake.metadata.write() as tx:
            people.add_user(tx, "ann", "user", 0, "ann@example.org")
            people.change_user(tx, "ann", 0, is_email_verified=True)
        feed.connections.create(ConnectionInput(slug="anns", provider="ccxt:kraken", owner="ann", symbols=("BTC/USD",), timeframes=("1m",)))
        yield feed


def happen(feed, title="anns does not work", message="login refused"):
    """Note something."""
    with feed.lake.metadata.write() as tx:
        notify(tx, "connection_failing", "error", read_connection(tx, "anns").id, title, message, feed.clock.now_us())


async def test_each_notice_goes_out_once_by_each_channel(home, mail, hook):
    """Operators and the verified owner get the mail, the receiver the post; a second round sends nothing."""
    happen(home)
    assert (await send_notices(home)).sent == 2
    assert (await send_notices(home)).sent == 0
    (to, text), = mail[0].taken
    assert sorted(to) == ["ann@example.org", "duty@example.org", "ops@example.org"]
    assert "Subject: [Candlelake] error: anns does not work" in text
    assert "https://c.example/connections/anns" in text
    assert "ops@example.org" not in text  # receivers do not see each other
    (headers, body, path), = hook[0].got
    assert path == "/in?token=canary"
    assert json.loads(body) == {
        "id": 1, "kind": "connection_failing", "severity": "error", "connection": "anns", "title": "anns does not work",
        "message": "login refused", "at": "2026-01-05T12:00:00Z"}
    second, mark = headers["x-candlelake-signature"].removeprefix("t=").split(",v1=")
    assert hmac.new(b"shared", second.encode() + b"." + body, hashlib.sha256).hexdigest() == mark
    (row,) = list_notices(home)
    assert (row.sent, row.failed) == (("email", "webhook"), ())


async def test_an_address_that_is_not_verified_or_not_active_gets_nothing(home, mail):
    """Only people who proved their address are written to."""
    for change in ({"is_email_verified": False}, {"is_email_verified": True, "is_active": False}):
        with home.lake.metadata.write() as tx:
            people.change_user(tx, "ann", 0, **change)
        happen(home)
        await send_notices(home)
    assert [sorted(to) for to, _ in mail[0].taken] == [["duty@example.org", "ops@example.org"]] * 2


async def test_a_channel_that_fails_is_tried_later_and_later_and_hinders_no_other(home, mail, hook):
    """While the receiver is down the mail goes out; the post follows when it is up, under the same key, and then no more."""
    hook[0].status = 503
    happen(home)
    first = await send_notices(home)
    assert first.sent == 1
    assert len(first.errors) == 1
    assert "canary" not in first.errors[0]
    assert (await send_notices(home)).errors == []  # not due yet
    for hours in (1, 4):
        home.clock.advance(timedelta(hours=hours))
        assert len((await send_notices(home)).errors) == 1
    hook[0].status = 204
    home.clock.advance(timedelta(hours=8))
    assert (await send_notices(home)).sent == 1
    home.clock.advance(timedelta(hours=12))
    assert (await send_notices(home)).sent == 0
    assert len({headers["idempotency-key"] for headers, _, _ in hook[0].got}) == 1
    assert len(mail[0].taken) == 1


async def test_a_try_put_off_by_a_wrong_clock_is_not_lost(home, hook):
    """A delivery that failed while the clock was a month ahead is tried again once it is right, not in a month."""
    home.clock.advance(timedelta(days=30))
    hook[0].status = 503
    happen(home)
    assert len((await send_notices(home)).errors) == 1
    home.clock.advance(-timedelta(days=30))
    hook[0].status = 204
    assert (await send_notices(home)).sent == 1


async def test_receivers_that_take_the_call_and_never_answer_are_given_up(home, mail):
    """A webhook, then a mail server, that hang: each is a failure in one line after the time that a request has, and the other one's news goes out."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        for changes, name, sent in (
                ({"notify_webhook_url": SecretStr(f"http://127.0.0.1:{port}/in?token=canary")}, "webhook", 1),
                ({"smtp_url": SecretStr(f"smtp://127.0.0.1:{port}")}, "email", 2)):  # two posts: the first one's is made up for
            with open_feed(home.settings.model_copy(update={**changes, "request_timeout": 0.5}), home.clock) as feed:
                happen(feed)
                done = await send_notices(feed)
            assert (done.sent, len(done.errors)) == (sent, 1)
            assert done.errors[0].startswith(f"{name}: ")
            assert "canary" not in done.errors[0]
            home.clock.advance(timedelta(hours=1))
    assert len(mail[0].taken) == 1


async def test_it_is_given_up_after_so_many_tries(home, hook):
    """A receiver that is down for days is not asked for ever, and the list says what was wrong."""
    hook[0].status = 500
    happen(home)
    for _ in range(TRIES + 3):
        await send_notices(home)
        home.clock.advance(timedelta(hours=9))
    assert len(hook[0].got) <= TRIES
    (row,) = list_notices(home)
    assert row.sent == ("email",)
    assert "HTTP 500" in row.failed[0]


async def test_a_sender_that_died_is_followed_by_another_after_its_claim(home, mail):
    """What was claimed and never noted as sent goes out again when the claim has run out, not before."""
    happen(home)
    assert [notice.id for notice in notices._claim(home, "email")] == [1]  # what a process does before it dies
    await send_notices(home)
    assert mail[0].taken == []
    home.clock.advance(timedelta(minutes=11))
    await send_notices(home)
    assert len(mail[0].taken) == 1


async def test_old_history_is_not_news(home, mail, hook):
    """What happened days before a channel was set up is not sent."""
    happen(home)
    home.clock.advance(timedelta(days=2))
    assert (await send_notices(home)).sent == 0
    assert mail[0].taken == hook[0].got == []


async def test_header_lines_cannot_be_smuggled(home, mail):
    """A title with line breaks, as a hostile broker may word it, adds no header and no receiver."""
    happen(home, "broken\r\nBcc: eve@example.org\r\n\r\nhello", "text\r\n.\r\nMAIL FROM:<eve@example.org>")
    assert (await send_notices(home)).errors == []
    (to, text), = mail[0].taken
    assert "eve@example.org" not in to
    head = text.split("\r\n\r\n")[0].replace("\r\n ", " ")
    assert not any(line.startswith("Bcc") for line in head.splitlines())
    assert not any(command.startswith("MAIL FROM:<eve") for command in mail[0].commands)


async def test_a_password_is_not_sent_without_tls(home, mail, tmp_path):
    """A mail server that offers no TLS gets no login."""
    open_settings = home.settings.model_copy(update={"smtp_url": Settings(
        _env_file=None, smtp_url=f"smtp://lake:canary@127.0.0.1:{mail[1]}").smtp_url, "notify_webhook_url": None})
    with open_feed(open_settings, home.clock) as feed:
        done = await send_trial(feed)
    assert "no TLS" in done["email"]
    assert not any("AUTH" in command or "canary" in command for command in mail[0].commands)


async def test_a_refusing_mail_server_is_one_line(home, mail):
    """The server's refusal is a failure of that channel, in one line."""
    mail[0].refuse = b"550 no such user"
    happen(home)
    done = await send_notices(home)
    assert len(done.errors) == 1
    assert done.errors[0].startswith("email: the mail server 127.0.0.1 did not take it")
    assert "\n" not in done.errors[0]


@pytest.mark.parametrize("values", [{"smtp_url": "http://mail.example.org"}, {"smtp_url": "smtp://"}])
def test_a_strange_mail_address_is_refused(values, home):
    """A mail server's address that is none is named with the setting."""
    with pytest.raises(InputError, match="CANDLELAKE_SMTP_URL"):
        channels_of(Settings(_env_file=None, **values), home.clock)


async def test_the_webhook_does_not_reach_inside(home):
    """Without the permission for private hosts, a webhook at a private or metadata address is refused."""
    closed = Settings(_env_file=None, notify_webhook_url="http://169.254.169.254/latest")
    with open_feed(home.settings.model_copy(update={
            "smtp_url": None, "allow_private_hosts": False, "notify_webhook_url": closed.notify_webhook_url}), home.clock) as feed:
        assert "not allowed" in (await send_trial(feed))["webhook"]


def test_a_pipeline_is_told_once_until_it_works_again(home):
    """Failures in a row are one notification; the recovery is another; the next failure a third."""
    with home.lake.metadata.write() as tx:
        number = read_connection(tx, "anns").id
        for error in (None, "boom", "boom", "bang", None, None, "boom"):
            tell_pipeline(tx, number, "trend", error, 1)
    assert [row.title for row in list_notices(home)][::-1] == ["pipeline trend fails", "pipeline trend works again", "pipeline trend fails"]


def test_acknowledged_once(home):
    """Who acknowledges first is the one; an unknown number is an error; the unseen list gets shorter."""
    happen(home)
    first = acknowledge(home, 1)
    home.clock.advance(timedelta(minutes=1))
    assert acknowledge(home, 1) == (first[0], False)
    assert first[1] is True
    assert list_notices(home, only_unseen=True) == []
    with pytest.raises(NotFoundError):
        acknowledge(home, 2)
