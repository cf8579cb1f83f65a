"""Catalogs: applications of the core, one per folder; the core never imports them, and they don't know each other."""
