"""Commands for those who change the gateway."""
