"""Compose files to a Project, one module per phase. Pure: files come through a read argument."""
