"""The vault: sealed to a place, several keys at once, rotation that survives kill -9."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from core.clock import ManualClock
from core.errors import DecryptionError, InputError, KeyMissingError, PermanentError, StoreUnwritableError
from core.secrets import Secret
from core.settings import Settings
from storage.keys import default_path
from storage.metadata.tables import connections, credentials
from storage.vault import KeyRing, Vault

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ManualClock(1_700_000_000_000_000)
ROTATE = """
import sys
from pathlib import Path
from core.clock import SystemClock
from core.settings import Settings
from storage.metadata.store import open_metadata
from storage.vault import KeyRing, Vault
config = Settings(key_file=Path(sys.argv[2]))
vault = Vault(open_metadata(sys.argv[1]), KeyRing.load(config), SystemClock())
print(vault.rotate(lambda done, total, what: print("step", done, flush=True)), flush=True)
"""


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "keys" / "home.keys"


@pytest.fixture
def vault(metadata_store, key_file):
    return Vault(metadata_store, KeyRing.create(key_file), CLOCK)


def _connection(tx, slug, owner=None):
    return tx.execute(connections.insert().values(
        slug=slug, name=slug, type="fx", provider="p", config={}, settings={}, status="active", is_active=True, owner=owner,
        is_admin_owned=False, created_at_us=0, updated_at_us=0)).inserted_primary_key[0]


def _put(vault, store, slug, owner=None, **fields):
    with store.write() as tx:
        connection_id = _connection(tx, slug, owner)
        vault.put(tx, connection_id, owner, {name: Secret(value) for name, value in fields.items()})
    return connection_id


def _get(vault, store, connection_id, owner=None):
    with store.read() as tx:
        return {name: secret.reveal() for name, secret in vault.get(tx, connection_id, owner).items()}


def _rows(store):
    with store.read() as tx:
        return tx.execute(select(credentials).order_by(credentials.c.connection_id, credentials.c.field)).mappings().all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("")
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_comes_back(vault, text):
    """Whatever is put comes back, and its text stands nowhere in the envelope."""
    sealed = vault._seal(text, vault._ring.first, (1, "ann", "password"))
    assert vault._open(sealed, (1, "ann", "password")) == text
    assert len(text) < 4 or text.encode() not in sealed


def test_envelope_names_its_key(vault, metadata_store):
    """A ciphertext starts with version and key id; sealing the same text twice gives two ciphertexts."""
    _put(vault, metadata_store, "a", one="same", two="same")
    one, two = _rows(metadata_store)
    assert bytes(one["ciphertext"]).startswith(f"v1:{vault._ring.first}:".encode())
    assert one["key_id"] == vault._ring.first
    assert bytes(one["ciphertext"]) != bytes(two["ciphertext"])


def test_a_moved_ciphertext_does_not_decrypt(vault, metadata_store):
    """Copied to another connection, field or owner it does not open; the error names the key and nothing is changed."""
    admin = _put(vault, metadata_store, "admin", owner="root", password="s3cret", pin="1")
    user = _put(vault, metadata_store, "user", owner="eve", password="own")
    sealed = {row["field"]: row["ciphertext"] for row in _rows(metadata_store) if row["connection_id"] == admin}
    for connection_id, owner, field in ((user, "eve", "password"), (admin, "root", "pin")):
        with metadata_store.write() as tx:
            tx.execute(credentials.update().where(
                credentials.c.connection_id == connection_id, credentials.c.field == field,
            ).values(ciphertext=sealed["password"]))
        with pytest.raises(DecryptionError, match=vault._ring.first) as caught:
            _get(vault, metadata_store, connection_id, owner)
        assert caught.value.key_id == vault._ring.first
    with pytest.raises(DecryptionError):
        vault._open(bytes(sealed["password"]), (admin, None, "password"))


def test_every_altered_byte_is_noticed(vault):
    """A flipped bit anywhere in an envelope is a typed error, never a wrong text."""
    sealed = vault._seal("s3cret", vault._ring.first, (1, None, "password"))
    for place in range(len(sealed)):
        for bit in (1, 0x20, 0x80):
            altered = bytearray(sealed)
            altered[place] ^= bit
            try:
                text = vault._open(bytes(altered), (1, None, "password"))
            except (DecryptionError, KeyMissingError):
                continue
            assert text == "s3cret"  # spare bits at the end of base64 carry nothing


@pytest.mark.parametrize("envelope", [b"", b"v1", b"v2:k:a:b", b"v1:k:!!:!!", b"v1:\xff:AAAA:AAAA", b"gAAAAA"])
def test_malformed_envelopes_are_typed_errors(vault, envelope):
    """Anything that is no envelope is a DecryptionError or, for an unknown key, a KeyMissingError."""
    with pytest.raises((DecryptionError, KeyMissingError)):
        vault._open(envelope, (1, None, "password"))


def test_several_keys_live_at_once(metadata_store, vault, key_file):
    """Ciphertexts of an older key open after a new key was put first; new ones use the first."""
    old_key = vault._ring.first
    old = _put(vault, metadata_store, "old", password="one")
    new_key = KeyRing.load(Settings(key_file=key_file)).add()
    new = _put(vault, metadata_store, "new", password="two")
    assert {row["key_id"] for row in _rows(metadata_store)} == {old_key, new_key}
    assert _get(vault, metadata_store, old) == {"password": "one"}
    assert _get(vault, metadata_store, new) == {"password": "two"}


def test_a_missing_key_is_named_and_nothing_overwritten(metadata_store, vault, key_file):
    """Without its key a ciphertext stays as it is: get, put on an empty ring and rotate all name the key id."""
    connection_id = _put(vault, metadata_store, "a", password="one")
    key_id, before, backup = vault._ring.first, _rows(metadata_store), key_file.read_text()
    key_file.unlink()
    lost = Vault(metadata_store, KeyRing.load(Settings(key_file=key_file)), CLOCK)
    for action in (lambda: _get(lost, metadata_store, connection_id), lost.rotate,
                   lambda: _put(lost, metadata_store, "b", password="two")):
        with pytest.raises(KeyMissingError, match=key_id) as caught:
            action()
        assert caught.value.key_id == key_id
    assert not key_file.exists()
    assert _rows(metadata_store) == before
    key_file.write_text(backup)
    key_file.chmod(0o600)
    assert _get(lost, metadata_store, connection_id) == {"password": "one"}


def test_another_key_of_the_same_id_overwrites_nothing(metadata_store):
    """A wrong key under a known id is refused by name wherever it would seal; under an id of its own it may."""
    right, wrong = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    connection_id = _put(Vault(metadata_store, KeyRing.load(Settings(keys=SecretStr(f"k:{right}"))), CLOCK), metadata_store, "a", password="one")
    before = _rows(metadata_store)
    bad = Vault(metadata_store, KeyRing.load(Settings(keys=SecretStr(f"k:{wrong}"))), CLOCK)

    def enter_again(vault: Vault) -> None:
        with metadata_store.write() as tx:
            vault.put(tx, connection_id, None, {"password": Secret("two")})

    for action in (bad.rotate, lambda: enter_again(bad), lambda: _put(bad, metadata_store, "b", password="two")):
        with pytest.raises(DecryptionError, match="'k' opens nothing") as caught:
            action()
        assert caught.value.key_id == "k"
        assert _rows(metadata_store) == before
    other = Vault(metadata_store, KeyRing.load(Settings(keys=SecretStr(f"l:{wrong}"))), CLOCK)
    enter_again(other)
    assert _get(other, metadata_store, connection_id) == {"password": "two"}


def test_the_first_credential_makes_the_key_file(metadata_store, key_file):
    """On a new home no step is needed: the key file appears with mode 0600 when the first credential is stored."""
    vault = Vault(metadata_store, KeyRing.load(Settings(key_file=key_file)), CLOCK)
    connection_id = _put(vault, metadata_store, "a", password="one")
    assert key_file.stat().st_mode & 0o777 == 0o600
    again = Vault(metadata_store, KeyRing.load(Settings(key_file=key_file)), CLOCK)
    assert _get(again, metadata_store, connection_id) == {"password": "one"}


def test_rotate_and_retire(metadata_store, vault, key_file):
    """Rotation makes a new first key and reseals all; only then the old key can be retired, and the first one never."""
    old = vault._ring.first
    ids = [_put(vault, metadata_store, f"c{i}", password=f"p{i}", user="u") for i in range(60)]
    other = KeyRing.load(Settings(key_file=key_file))
    running = Vault(metadata_store, other, CLOCK)
    with pytest.raises(PermanentError, match="encrypts new"):
        vault.retire(old)
    steps = []
    assert vault.rotate(lambda done, total, what: steps.append((done, total))) == 120
    assert steps == [(50, 120), (100, 120), (120, 120)]
    new = vault._ring.first
    assert {row["key_id"] for row in _rows(metadata_store)} == {new} != {old}
    assert _get(running, metadata_store, ids[7]) == {"password": "p7", "user": "u"}
    vault.retire(old)
    assert list(KeyRing.load(Settings(key_file=key_file)).keys) == [new]
    with pytest.raises(InputError, match=old):
        vault.retire(old)


def test_retire_refuses_a_key_in_use(metadata_store, vault):
    """A key that still seals something stays."""
    _put(vault, metadata_store, "a", password="one")
    old = vault._ring.first
    vault._ring.add()
    with pytest.raises(PermanentError, match="still seals 1"):
        vault.retire(old)
    assert old in vault._ring.keys


@pytest.mark.slow
def test_rotation_survives_kill(sqlite_url, key_file):
    """After kill -9 in the middle of a rotation, again and again: every credential opens at any time, and the next run ends it."""
    from storage.metadata.migrate import upgrade
    from storage.metadata.store import open_metadata

    store = open_metadata(sqlite_url)
    upgrade(store)
    vault = Vault(store, KeyRing.create(key_file), CLOCK)
    old = vault._ring.first
    ids = [_put(vault, store, f"c{i}", **{f"f{n}": f"{i}-{n}" for n in range(10)}) for i in range(100)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ROTATE, sqlite_url, str(key_file)]
    for kills in range(1, 4):
        worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(kills):
            assert worker.stdout.readline().startswith("step")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        assert {row["key_id"] for row in _rows(store)} == {old, KeyRing.load(Settings(key_file=key_file)).first}
        for number in (0, 50, 99):
            assert _get(vault, store, ids[number])["f3"] == f"{number}-3"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout.splitlines()[-1]) < 1000
    ring = KeyRing.load(Settings(key_file=key_file))
    assert len(ring.keys) == 2
    assert {row["key_id"] for row in _rows(store)} == {ring.first}
    assert all(_get(vault, store, key) == {f"f{n}": f"{i}-{n}" for n in range(10)} for i, key in enumerate(ids))
    store.close()


def test_create_never_overwrites(key_file):
    """A key file that is there stays as it is; no temporary file is left behind."""
    KeyRing.create(key_file)
    before = key_file.read_bytes()
    with pytest.raises(PermanentError, match="not overwritten"):
        KeyRing.create(key_file)
    assert key_file.read_bytes() == before
    assert [path.name for path in key_file.parent.iterdir()] == [key_file.name]


def test_an_open_key_file_is_refused_with_the_command_to_run(key_file):
    """A key file that others may read is not used."""
    KeyRing.create(key_file)
    for mode in (0o640, 0o604, 0o660):
        key_file.chmod(mode)
        with pytest.raises(PermanentError, match=f"chmod 600 {key_file}"):
            KeyRing.load(Settings(key_file=key_file))


@pytest.mark.parametrize("text", ["nonsense", "k:AAAA", "k y:" + "A" * 43 + "=", "k:" + "A" * 43 + "=,k:" + "B" * 43 + "="])
def test_malformed_keys_are_refused_without_their_text(text, key_file):
    """A key that is too short, misnamed or repeated is named by its place, never by its text; as setting and as file."""
    with pytest.raises(InputError, match="CANDLELAKE_KEYS, entry") as caught:
        KeyRing.load(Settings(keys=SecretStr(text)))
    assert "AAAA" not in str(caught.value)
    key_file.parent.mkdir()
    key_file.touch(mode=0o600)
    key_file.write_text(text.replace(",", "\n"))
    with pytest.raises(InputError, match="key file"):
        KeyRing.load(Settings(key_file=key_file))
    key_file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="plain text"):
        KeyRing.load(Settings(key_file=key_file))


def test_keys_from_the_environment(metadata_store):
    """CANDLELAKE_KEYS holds several keys, the first encrypts; rotating seals with it and never invents a key."""
    one, two = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    old = Vault(metadata_store, KeyRing.load(Settings(keys=SecretStr(f"one:{one}"))), CLOCK)
    connection_id = _put(old, metadata_store, "a", password="x")
    ring = KeyRing.load(Settings(keys=SecretStr(f"two:{two},one:{one}")))
    both = Vault(metadata_store, ring, CLOCK)
    assert (both.rotate(), both.rotate()) == (1, 0)
    assert _rows(metadata_store)[0]["key_id"] == "two"
    assert _get(both, metadata_store, connection_id) == {"password": "x"}
    with pytest.raises(KeyMissingError, match=r"two.*CANDLELAKE_KEYS"):
        _get(old, metadata_store, connection_id)
    for action in (ring.add, lambda: both.retire("one")):
        with pytest.raises(InputError, match="CANDLELAKE_KEYS"):
            action()
    empty = KeyRing.load(Settings(keys=SecretStr("")))
    with pytest.raises(KeyMissingError):
        _ = empty.first
    assert one not in repr(ring)


def test_keys_lie_outside_the_home(tmp_path):
    """The default key file is in the person's configuration, one for each home."""
    first, second = default_path(tmp_path / "a"), default_path(tmp_path / "b")
    assert first != second
    assert first.parent == Path(os.environ["XDG_CONFIG_HOME"]) / "candlelake"
    assert KeyRing.load(Settings(home=tmp_path / "a")).path == first


def test_an_unwritable_key_folder_is_named(tmp_path):
    """A folder that cannot be made, or a file that is a folder, is a StoreUnwritableError with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritableError, match="file"):
        KeyRing.create(tmp_path / "file" / "x.keys")
    with pytest.raises(StoreUnwritableError, match="cannot read"):
        KeyRing.load(Settings(key_file=tmp_path))


def test_remove_and_fields(metadata_store, vault):
    """Fields are listed without opening them, and removed one by one or all at once."""
    connection_id = _put(vault, metadata_store, "a", password="x", pin="y", user="z")
    with metadata_store.write() as tx:
        vault.remove(tx, connection_id, ["pin"])
        assert vault.fields(tx, connection_id) == ["password", "user"]
        vault.remove(tx, connection_id)
        assert vault.fields(tx, connection_id) == []
        vault.put(tx, connection_id, None, {})
        assert vault.fields(tx, connection_id) == []
