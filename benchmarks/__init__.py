"""Benchmarks against the peers.

A package and not a bare folder, because a peer's environment may hold an installed package of the same name: from the
project's root ours comes first. It is no floor: nothing imports it, and it is never installed.
"""
