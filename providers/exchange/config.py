"""What a person configures for a connection to an exchange, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core.errors import InputError

_KEYS: Final = ("market_types", "options", "sandbox")
MARKET_TYPES: Final = ("spot", "swap", "future", "option", "linear", "inverse", "contract")


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """The checked `config` of a connection.

    Attributes:
        market_types: kinds of markets to load where the exchange loads them apart; spot alone unless told otherwise.
        options: handed to ccxt's `options`, for what only one exchange knows.
        is_sandbox: use the exchange's test network.
    """

    market_types: tuple[str, ...] = ("spot",)
    options: Mapping[str, object] = field(default_factory=dict)
    is_sandbox: bool = False

    @staticmethod
    def parse(config: Mapping[str, object]) -> ExchangeConfig:
        """Return the checked configuration.

        Raises:
            InputError: an unknown key, or a value of another type.
        """
        for key in config:
            if key not in _KEYS:
                raise InputError("exchange configuration", key, _KEYS, "remove the key")
        kinds, options, sandbox = config.get("market_types", ("spot",)), config.get("options", {}), config.get("sandbox", False)
        if not isinstance(kinds, list | tuple) or not kinds or any(kind not in MARKET_TYPES for kind in kinds):
            raise InputError("market_types", kinds, f"a list of {', '.join(MARKET_TYPES)}")
        if not isinstance(options, Mapping):
            raise InputError("options", type(options).__name__, "an object of ccxt options")
        if not isinstance(sandbox, bool):
            raise InputError("sandbox", sandbox, "true or false")
        return ExchangeConfig(tuple(str(kind) for kind in kinds), options, sandbox)
