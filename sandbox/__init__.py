"""A practice broker and exchanges on loopback, over real data. Imports core alone."""
