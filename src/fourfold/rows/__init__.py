"""Rows: engines, transactions, column types, Fourfold's own tables, and the triggers that record what changed."""
