"""`watch`: files of this host that change, and what containers are to have of it."""
