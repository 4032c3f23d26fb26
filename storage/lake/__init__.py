"""The lake: immutable Parquet files below one root, and the manifest that says which of them are live."""
