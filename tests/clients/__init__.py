"""Other programs than the official SDKs, unmodified, against a live gateway: the recipes of `docs/clients.md`."""
