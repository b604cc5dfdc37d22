"""The dari command: prints and asks, never decides. Every import is paid by the user, so all are lazy."""
