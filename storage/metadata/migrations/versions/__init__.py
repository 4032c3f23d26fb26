"""One file for each change of the schema, oldest first. A file that was released is never edited."""
