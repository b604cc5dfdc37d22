"""Network drivers, one file each; this module is their only door."""
