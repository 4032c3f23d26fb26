"""core.settings: typed, bounded, from the environment."""

from pathlib import Path

import pytest

from core.errors import InputError
from core.settings import Settings, settings


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_defaults_lie_below_home() -> None:
    """Without variables the state lies in .candlelake below the working folder."""
    assert Settings().lake_root == ".candlelake/lake"
    assert Settings().database_url.endswith("/.candlelake/metadata.db")


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """CANDLELAKE_* variables win."""
    monkeypatch.setenv("CANDLELAKE_HOME", "/elsewhere")
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", "postgresql+psycopg://u:p@h/d")
    assert settings().home == Path("/elsewhere")
    assert settings().database_url == "postgresql+psycopg://u:p@h/d"
    assert "p@h" not in repr(settings())


def test_a_bad_value_names_the_variable_and_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, what came and what is allowed."""
    monkeypatch.setenv("CANDLELAKE_OVERLAP_CANDLES", "many")
    with pytest.raises(InputError, match=r"CANDLELAKE_OVERLAP_CANDLES: received 'many'; allowed: .*integer"):
        settings()


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`CANDLELAKE_HOME=` in a script or a .env file is not the working folder, and an empty list of keys is not a list of none."""
    (tmp_path / ".env").write_text("CANDLELAKE_OVERLAP_CANDLES=\n")
    for name in ("HOME", "LAKE", "KEYS", "METADATA_URL"):
        monkeypatch.setenv(f"CANDLELAKE_{name}", "")
    assert settings() == Settings.model_construct()
    assert settings().home == Path(".candlelake")


@pytest.mark.parametrize("shard", ["5/3", "0/3", "3", "a/b", "1/0", "-1/3", "1/2/3"])
def test_a_share_that_no_machine_has_is_refused(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth of three would work on another one's connections."""
    monkeypatch.setenv("CANDLELAKE_SHARD", shard)
    with pytest.raises(InputError, match=r"CANDLELAKE_SHARD: received .*; allowed: i/n with i from 1 to n"):
        settings()
