"""The configuration: YAML and environment are read, checked against each other, and turned into models and
deployments. Faults are reported with their path and their remedy.

The provider presets lie in `presets/`. Knows no request, and sends nothing. Begin with `loading`, then `schema`.
"""
