"""Connections: storage and providers joined once. Service, health, rate budget, leases."""
