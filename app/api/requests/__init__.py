"""The way in: bodies in JSON and in multipart forms are read into an `ImageRequest`, piece by piece.

Pictures go to spools and are never held whole. Knows neither models nor profiles: the catalog judges whether a request
can be served. Begin with `reading`, which chooses the reader.
"""
