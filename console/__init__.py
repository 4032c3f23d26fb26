"""The web console and the API."""
