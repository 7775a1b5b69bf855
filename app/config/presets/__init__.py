"""The providers that ship, one YAML file each: address, dialect, models with profiles. Data only."""
