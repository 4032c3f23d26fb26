"""config and doctor: what they say about this installation."""

import socket

import pytest

from cli.doctor import examine
from core.settings import Settings, settings


def findings():
    """The findings of doctor by check."""
    settings.cache_clear()
    return {item.check: item for item in examine(settings())}


def test_config_shows_every_setting_and_masks_secrets(candlelake, monkeypatch, home):
    """All settings are there with their values; those that may hold a secret show stars."""
    monkeypatch.setenv("CANDLELAKE_KEYS", "k1:c2VjcmV0LXNlY3JldA==")
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", "postgresql://me:hunter2@host/db")
    answer = candlelake("config", "--json")
    assert answer.code == 0
    assert set(answer.json) == {f"CANDLELAKE_{name.upper()}" for name in Settings.model_fields}
    assert answer.json["CANDLELAKE_KEYS"] == "********"
    assert answer.json["CANDLELAKE_HOME"] == str(home)
    table = candlelake("config")
    for text in (answer.out, table.out):
        assert "hunter2" not in text
        assert "c2Vjcm" not in text


def test_config_says_where_a_value_comes_from(candlelake, tmp_path):
    """A value is from the environment, from .env, or the default."""
    (tmp_path / ".env").write_text("CANDLELAKE_FLUSH_MINUTES=7\n")
    rows = {line.split()[0]: line for line in candlelake("config").out.splitlines() if line.strip().startswith("CANDLELAKE")}
    assert " environment " in rows["CANDLELAKE_HOME"]
    assert " .env " in rows["CANDLELAKE_FLUSH_MINUTES"]
    assert " 7 " in rows["CANDLELAKE_FLUSH_MINUTES"]
    assert " default " in rows["CANDLELAKE_SHARD"]


def test_doctor_is_content_and_changes_nothing(candlelake, home):
    """On a sound installation doctor exits 0 and does not even make the home."""
    answer = candlelake("doctor", "--json")
    assert answer.code == 0, answer.out
    assert {row["status"] for row in answer.json} <= {"ok", "warning"}
    assert not home.exists()


def test_doctor_sees_a_broken_database(candlelake, home):
    """A metadata store that is no database is an error with what to do, and exit code 1."""
    home.mkdir()
    (home / "metadata.db").write_bytes(b"this is no database" * 500)
    answer = candlelake("doctor")
    assert answer.code == 1
    assert "restore a backup" in answer.out


def test_doctor_sees_a_key_file_that_others_can_read(home, tmp_path, monkeypatch):
    """A key file with a mode that lets others read is an error."""
    path = tmp_path / "keys"
    path.write_text("k1:x")
    path.chmod(0o644)
    monkeypatch.setenv("CANDLELAKE_KEY_FILE", str(path))
    assert findings()["keys"].status == "error"
    path.chmod(0o600)
    assert findings()["keys"].status == "ok"


def test_doctor_sees_a_home_that_is_a_file(home):
    """A home that cannot be a folder is an error."""
    home.write_text("")
    assert findings()["home"].status == "error"


def test_doctor_sees_a_port_in_use(home, free_port, monkeypatch):
    """A port in use is a warning that names the setting."""
    monkeypatch.setenv("CANDLELAKE_PREFECT_PORT", str(free_port))
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port))
        server.listen()
        found = findings()["prefect_port"]
    assert found.status == "warning"
    assert "CANDLELAKE_PREFECT_PORT" in found.message


@pytest.mark.parametrize(("more", "status", "text"), [
    ({}, "ok", "127.0.0.1"),
    ({"BIND": "0.0.0.0"}, "warning", "CANDLELAKE_CONSOLE_URL"),
    ({"BIND": "::", "URL": "https://c.example"}, "warning", "CANDLELAKE_CONSOLE_PROXIES"),
    ({"BIND": "0.0.0.0", "URL": "https://c.example", "PROXIES": "10.0.0.2"}, "ok", "c.example"),
])
def test_doctor_warns_of_an_open_console(home, monkeypatch, more, status, text):
    """A console beyond loopback needs an https address, and the proxy whose word it takes for who asks."""
    for name, value in more.items():
        monkeypatch.setenv(f"CANDLELAKE_CONSOLE_{name}", value)
    found = findings()["console exposure"]
    assert found.status == status
    assert text in found.message


@pytest.mark.parametrize(("host", "auth", "status"), [
    ("127.0.0.1", False, "ok"), ("0.0.0.0", False, "warning"), ("0.0.0.0", True, "ok"),
])
def test_doctor_warns_of_an_open_prefect_server(home, monkeypatch, host, auth, status):
    """A Prefect API beyond loopback needs auth, a CORS list and CSRF protection."""
    monkeypatch.setenv("PREFECT_SERVER_API_HOST", host)
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "PREFECT_SERVER_CSRF_PROTECTION_ENABLED"):
        if auth:
            monkeypatch.setenv(name, "set")
        else:
            monkeypatch.delenv(name, raising=False)
    assert findings()["prefect exposure"].status == status
