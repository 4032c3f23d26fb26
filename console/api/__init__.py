"""The HTTP API under /api: JSON in and out, the same calls as the pages."""
