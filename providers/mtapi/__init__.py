"""MetaTrader 4 and 5 accounts through the mtapi.io bridge: REST, hosted or self-hosted."""
