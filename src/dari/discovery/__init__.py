"""Who has which name: register, lookup, and the pure rendering of DNS zones."""
