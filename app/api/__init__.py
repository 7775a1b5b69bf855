"""The inside of the gateway: HTTP requests are read into values, and results are sent. The endpoints lie here, the
readers in `requests/`, the encoders in `responses/`, the OpenAPI document in `docs/`.

Knows no provider, no dialect and no configuration: `app.wiring` hands in a `Runtime`. Begin with `images`, the path of
one request from its head to its run.
"""
