"""The providers that ship with the gateway, one YAML file each: address, dialect, and models with profiles.

Holds data alone. A provider entry of the configuration takes the preset of its own name.
"""
