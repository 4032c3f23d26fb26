"""The one reader of settings: environment variables `CANDLELAKE_*`, each with a type, a default and a description."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import InputError


class Settings(BaseSettings):
    """All settings. Paths that are not set lie under `home`."""

    model_config = SettingsConfigDict(env_prefix="CANDLELAKE_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(Path(".candlelake"), description="Folder of all state: lake, metadata, Prefect, logs.")
    lake: str | None = Field(None, description="Where the Parquet lake lies; default HOME/lake; a folder or s3://bucket/prefix.")
    object_store_endpoint: str | None = Field(
        None, description="Address of an S3-compatible store other than AWS, http only if it says so; default AWS_ENDPOINT_URL or AWS.")
    object_store_region: str | None = Field(None, description="Region of the lake's bucket; default AWS_REGION.")
    object_store_access_key: SecretStr | None = Field(
        None, description="Access key id for the lake's bucket; default AWS_ACCESS_KEY_ID, or the machine's role.")
    object_store_secret_key: SecretStr | None = Field(
        None, description="Secret access key for the lake's bucket; default AWS_SECRET_ACCESS_KEY, or the machine's role.")
    object_copies_gb: Annotated[int, Field(ge=1)] = Field(
        50, description="Gigabytes of copies of a bucket's files that this machine keeps; those not read for longest go first.")
    metadata_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the metadata store; default SQLite HOME/metadata.db; postgresql+psycopg://...")
    keys: SecretStr | None = Field(
        None, description="Credential keys as id:base64,id:base64; the first one encrypts. Default: the key file.")
    key_file: Path | None = Field(
        None, description="File of the credential keys (mode 0600); default ~/.config/candlelake/<home id>.keys.")
    allow_private_hosts: bool = Field(
        False, description="Allow connections to private and loopback addresses; the demo connections reach the sandbox without it.")
    overlap_candles: Annotated[int, Field(ge=0, le=1000)] = Field(
        3, description="How many stored candles each fetch reads again, to see what the provider changed.")
    settle_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        60.0, description="How long after its close a candle counts as closed, until the series has learned its own delay.")
    flush_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(15, description="How often the head is flushed to the lake.")
    retention_days: Annotated[int, Field(ge=1, le=36500)] | None = Field(
        None, description="Candles older than this are removed by the daily cleanup; unset keeps everything.")
    tick_retention_days: Annotated[int, Field(ge=1, le=36500)] | None = Field(
        None, description="Ticks of days older than this are removed by the daily cleanup; unset keeps everything.")
    old_files_grace_hours: Annotated[float, Field(ge=0, le=8760)] = Field(
        24.0, description="How long superseded lake files stay in .old/ before they are deleted.")
    fetch_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(16, description="How many connections a fetch run works on at once.")
    request_timeout: Annotated[float, Field(gt=0, le=600)] = Field(30.0, description="Seconds to wait for a provider's answer.")
    retry_wait: Annotated[float, Field(ge=0, le=60)] = Field(
        0.5, description="Seconds before a failed request is tried again; doubles with each of the five tries.")
    max_consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = Field(
        5, description="After so many failures in a row a connection is marked as error and its owner notified.")
    prefect_port: Annotated[int, Field(ge=1, le=65535)] = Field(4200, description="Port of the embedded Prefect server (loopback).")
    sandbox_port: Annotated[int, Field(ge=1, le=65535)] = Field(4280, description="Port of the sandbox (loopback).")
    console_port: Annotated[int, Field(ge=1, le=65535)] = Field(4290, description="Port of the web console.")
    console_bind: str = Field(
        "127.0.0.1", pattern=r"^[0-9A-Fa-f:.]+$",
        description="Address that the web console listens on; for any other than loopback put a TLS proxy before it.")
    console_proxies: str = Field(
        "", description="Addresses of proxies, with commas, that are believed who asks the console (X-Forwarded-For and -Proto).")
    console_read_only: bool = Field(False, description="The web console shows all and changes nothing: a demonstration.")
    console_require_verified_email: bool = Field(
        False, description="Only users whose e-mail address is marked as verified may use the console.")
    console_require_kyc: bool = Field(False, description="Only users whose KYC is marked as done may use the console.")
    console_require_totp: str = Field(
        "", pattern=r"^$|^(super_admin|staff_admin|user)(,(super_admin|staff_admin|user))*$",
        description="Roles that must have a second factor, with commas: super_admin, staff_admin, user.")
    console_hosts: str = Field(
        "127.0.0.1,localhost", description="Host names under which the console answers, with commas; others are refused.")
    console_url: str | None = Field(
        None, description="Public address of the web console behind a proxy, e.g. https://candles.example.org; default as asked.")
    oidc_issuer: str | None = Field(None, description="Address of an OpenID Connect provider by which users may sign in; needs the extra oidc.")
    oidc_client_id: str | None = Field(None, description="The console's client id at the OpenID Connect provider.")
    oidc_client_secret: SecretStr | None = Field(None, description="The console's client secret there; public clients have none.")
    oidc_label: str = Field("single sign-on", description="What the sign-in page calls the OpenID Connect provider.")
    smtp_url: SecretStr | None = Field(
        None, description="Mail server for notifications: smtp://[USER:PASSWORD@]HOST[:PORT] (TLS where offered) or smtps://...")
    notify_email: str = Field("", description="E-mail addresses of the operators who are told of everything, with commas.")
    notify_from: str | None = Field(None, description="Sender of these e-mails; default candlelake@HOST of the mail server.")
    notify_webhook_url: SecretStr | None = Field(None, description="Address that notifications are posted to as JSON.")
    notify_webhook_secret: SecretStr | None = Field(
        None, description="Key of the signature (HMAC-SHA256) that these posts carry, see docs/operations.md.")
    console_origins: str = Field(
        "", description="Web origins whose pages may read the API with a token, with commas, e.g. https://pro.openbb.co; none by default.")
    stage_timeout: Annotated[float, Field(gt=0, le=86_400)] = Field(
        60.0, description="Seconds that a live run waits until a plug-in is made, and for one call of a foreign one, before it goes on without it.")
    dask_address: str = Field(
        "", pattern=r"^$|^(tcp|tls)://[^\s/]+:\d+$",
        description="Dask scheduler on whose workers replays run, a task for each series: tcp://HOST:PORT; empty: in the run's process.")
    live_trading: bool = Field(
        False, description="Allow real orders; the connection and the pipeline have to allow them too, see docs/trading.md.")
    order_grace_seconds: Annotated[float, Field(ge=65, le=3600)] = Field(
        120.0, description="How long after it was sent an order that the broker does not know may still arrive there.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level of what is logged.")
    shard: Annotated[str, NoDecode] = Field(
        "1/1", description="This machine's share of the connections: i/n.")

    @field_validator("shard")
    @classmethod
    def _is_one_of_them(cls, shard: str) -> str:
        index, _, count = shard.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise PydanticCustomError("shard", "i/n with i from 1 to n, e.g. 2/3")
        return f"{int(index)}/{int(count)}"

    @property
    def totp_roles(self) -> frozenset[str]:
        """The roles that must have a second factor."""
        return frozenset(item for item in self.console_require_totp.split(",") if item)

    @property
    def lake_root(self) -> str:
        """The lake's folder or s3:// prefix."""
        return self.lake or str(self.home / "lake")

    @property
    def database_url(self) -> str:
        """The metadata store's SQLAlchemy URL, secrets included: never print it."""
        if self.metadata_url is not None:
            return self.metadata_url.get_secret_value()
        return f"sqlite:///{(self.home / 'metadata.db').absolute()}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the effective settings, read once.

    Raises:
        InputError: when a variable is not of its type; names the variable, the value's kind and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "CANDLELAKE_" + "_".join(str(part) for part in first["loc"]).upper()
        hidden = any(word in name for word in ("KEY", "URL", "SECRET"))
        received = "********" if hidden else first["input"]
        raise InputError(name, received, first["msg"], "see .env.example") from None
