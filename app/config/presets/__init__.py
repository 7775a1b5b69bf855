"""The providers that the package contains, one YAML file each: address, dialect, models with profiles. Data only."""
