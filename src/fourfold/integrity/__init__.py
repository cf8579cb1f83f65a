"""Proves that targets hold what the rows say, and queues what doesn't."""
