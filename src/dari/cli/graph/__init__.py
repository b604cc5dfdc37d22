"""`dari network graph`: the picture of networks and who is on them. Pure but for verb.py."""
