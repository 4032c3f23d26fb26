"""The pages: forms and tables out of templates, the same calls as the API."""
