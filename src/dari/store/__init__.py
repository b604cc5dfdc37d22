"""Desired state and journal: keys, bytes, transactions, watches, sessions. Meaning lives above (tables.py)."""
