"""What is left behind: the schema of a record, its file, and its rows as a flat table."""
