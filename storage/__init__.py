"""Where candles lie: the head and the lake, their manifest, the metadata store and the vault. Blind to providers."""
