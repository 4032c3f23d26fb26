"""`python -m deployments.apply` without a server."""

import re

import pytest

from core.errors import InputError, ProviderUnavailableError
from deployments.apply import main
from deployments.prefect_api import PrefectApi

NOBODY = "http://127.0.0.1:9/api"  # the discard port: nothing of ours listens there


def test_no_server_is_one_line(capsys):
    """Exit code 1 and a line that says where nobody answered."""
    assert main(["--api-url", NOBODY]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert NOBODY in error


def test_a_bad_url_is_bad_usage(capsys):
    """Exit code 2 and a line that says what is allowed."""
    assert main(["--api-url", "localhost:4200"]) == 2
    assert "allowed: http(s)://HOST:PORT/api" in capsys.readouterr().err


def test_waiting_ends():
    """A server that never comes is told."""
    with PrefectApi(NOBODY) as api, pytest.raises(ProviderUnavailableError, match=re.escape(NOBODY)):
        api.wait_until_healthy(0)


def test_a_url_without_scheme_is_refused():
    """What was received and what is allowed."""
    with pytest.raises(InputError, match="PREFECT_API_URL"):
        PrefectApi("4200")
