"""Pictures: formats and dimensions are read from the first bytes; pixels are worked on in a few bounded threads.

Pillow is imported by one module here, when the first picture needs it. Knows neither requests nor providers. Begin with
`formats` for headers and with `workers` for pixels.
"""
