"""The documentation that the gateway serves: `openapi.yaml` as a document, and a page that shows it.

Looks at no configuration and describes no provider. Begin with `openapi`.
"""
