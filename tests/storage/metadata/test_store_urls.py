"""storage.metadata.store: a metadata URL that cannot be used is refused in one line that does not repeat it."""

import pytest

from core.errors import InputError
from storage.metadata.store import open_metadata


@pytest.mark.parametrize("url", ["nonsense", "", "oracle9i://user:c4n4ry@host/db", "postgresql+nodriver://user:c4n4ry@host/db", "sqlite+c4n4ry://"])
def test_a_url_that_cannot_be_used_is_bad_input(url):
    """No URL at all, an unknown database, an unknown driver: one line says what is allowed; the URL may hold a password."""
    with pytest.raises(InputError) as caught:
        open_metadata(url)
    assert "CANDLELAKE_METADATA_URL" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "c4n4ry" not in str(caught.value)
