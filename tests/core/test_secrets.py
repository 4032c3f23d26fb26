"""core.secrets: a Secret shows nowhere, and foreign texts are redacted."""

import json
import logging
import pickle
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from core.secrets import RedactingFilter, Secret, mask, quiet_library_logs, redact

CANARY = "c4n4ry-9f3a"


def test_a_secret_shows_as_stars_everywhere() -> None:
    """repr, str, format and containers show stars; only reveal gives the text."""
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", repr({"password": secret}), "%s" % secret]  # noqa: UP031
    assert all(CANARY not in text for text in shown)
    assert secret.reveal() == CANARY
    assert secret
    assert not Secret("")


def test_a_secret_cannot_be_pickled_or_dumped() -> None:
    """Serialising a Secret is an error, not a leak."""
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(Secret(CANARY))
    with pytest.raises(TypeError):
        json.dumps({"secret": Secret(CANARY)})


def test_secrets_compare_by_value() -> None:
    """Equal texts are equal secrets."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"


@pytest.mark.parametrize("text", [
    f"GET https://host/ConnectEx?user=1&password={CANARY}&server=x",
    f"https://user:{CANARY}@host/path",
    f'{{"apiKey": "{CANARY}"}}',
    f"signature={CANARY}",
    f"token: {CANARY}",
    f"secret='{CANARY}'",
])
def test_foreign_texts_are_redacted(text: str) -> None:
    """Values of secret-looking names and user parts of URLs are masked."""
    assert CANARY not in redact(text)


def test_control_characters_are_dropped() -> None:
    """A provider's text cannot forge log lines or move the cursor."""
    assert redact("a\x1b[31mb\r\u202ec") == "a [31mb  c"


def test_the_filter_redacts_messages_and_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """A record is redacted after its arguments are filled in."""
    logger = logging.getLogger("candlelake-test")
    logger.addFilter(RedactingFilter())
    with caplog.at_level(logging.INFO, logger="candlelake-test"):
        logger.info("url %s", f"https://h/?api_key={CANARY}")
    assert CANARY not in caplog.text
    assert "********" in caplog.text


def test_libraries_that_log_urls_are_silenced() -> None:
    """Httpx prints whole URLs at INFO; it may not."""
    quiet_library_logs()
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


@pytest.mark.parametrize("form", [str, quote, lambda text: quote(text, safe=""), quote_plus, lambda text: json.dumps(text)[1:-1]])
def test_known_secrets_are_masked_however_they_are_echoed(form: Callable[[str], str]) -> None:
    """A provider may send a secret back plain, URL-encoded or inside JSON: none of it is shown; words around it stay."""
    value = 'pa"ss w/rd+&%\u00e4'
    assert mask(f"before {form(value)} after", [Secret("x"), Secret(value)]) == "before ******** after"
