"""compose.yaml and Dockerfile: structure that can be checked without a Docker engine."""

import re
from pathlib import Path

import pytest
import yaml

from deployments.declaration import read_declaration
from deployments.settings import prefect_environment

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def test_servers_are_watched():
    """Everything that stays up has a health check and comes back after a crash."""
    for name in ("postgres", "prefect", "worker", "console"):
        assert SERVICES[name]["healthcheck"]["test"]
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_order_of_start():
    """Workers start after the deployments, these after the migrations, these after the database; names resolve."""
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert name in SERVICES
            kind = "healthcheck" if how["condition"] == "service_healthy" else "command"
            assert kind in SERVICES[name]
    assert "deploy" in SERVICES["worker"]["depends_on"]
    assert "migrate" in SERVICES["deploy"]["depends_on"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_secret_stands_in_the_file(service):
    """Passwords, keys and the auth string come from the environment, and nothing starts without them."""
    for name, value in SERVICES[service].get("environment", {}).items():
        if re.search(r"PASSWORD|KEYS|AUTH|METADATA_URL|CONNECTION_URL", name):
            assert re.search(r"\$\{[A-Z_]+:\?", str(value)), name


def test_prefect_is_guarded():
    """The Prefect server asks for a login, checks CSRF and origins, and listens on loopback of its host only."""
    environment = SERVICES["prefect"]["environment"]
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert "*" not in environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["prefect"]["ports"])


def test_the_console_is_reached_from_its_host_alone():
    """Inside its container it listens on every address, outside on loopback; it knows its names and where Prefect's UI is."""
    console = SERVICES["console"]
    assert console["environment"]["CANDLELAKE_CONSOLE_BIND"] == "0.0.0.0"
    assert all(port.startswith("127.0.0.1:") for port in console["ports"])
    assert "127.0.0.1" in console["environment"]["CANDLELAKE_CONSOLE_HOSTS"]
    assert "PREFECT_UI_URL" in console["environment"]


def test_who_holds_a_place_outlives_the_container():
    """Prefect keeps the leases of its limits in files, on a volume: lost ones would block a deployment for ever."""
    prefect = SERVICES["prefect"]
    volume = next(item.split(":")[1] for item in prefect["volumes"])
    assert prefect["environment"]["PREFECT_HOME"].startswith(volume)
    assert prefect_environment()["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")


def test_the_worker_serves_the_declared_pool():
    """The worker polls the pool of prefect.yaml."""
    command = SERVICES["worker"]["command"]
    assert command[command.index("--pool") + 1] in read_declaration().pools


def test_the_image_is_built_from_hashes_and_keeps_its_bytecode():
    """Locked with hashes, compiled, not root; without bytecode every flow run would start twice as slowly."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines)
    assert "--require-hashes" in text
    assert "compileall" in text
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
