"""The peers: each stores and reads the same candles in its own way. See `benchmarks.peers.base.Peer`."""
