"""One module per Compose verb."""
