"""A feed is opened as its settings say."""

from sqlalchemy import make_url

from core.settings import Settings, settings
from feed import open_feed


def test_given_settings_win_over_the_environments(tmp_path, monkeypatch):
    """Home and metadata store are those of the settings that were given, not those that the environment names."""
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "environment"))
    settings.cache_clear()
    url = f"sqlite:///{tmp_path / 'elsewhere' / 'metadata.db'}"
    with open_feed(Settings(home=tmp_path / "given", key_file=tmp_path / "keys", metadata_url=url)) as feed:
        assert feed.lake.root == tmp_path / "given" / "lake"
        assert feed.lake.metadata.engine.url == make_url(url)
    assert (tmp_path / "elsewhere" / "metadata.db").exists()
    assert not (tmp_path / "environment").exists()
    settings.cache_clear()
