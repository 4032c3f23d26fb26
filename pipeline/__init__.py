"""The signal pipeline: stages, registry, engine."""
