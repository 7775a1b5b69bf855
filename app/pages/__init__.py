"""The pages of the gateway: the playground and the administration, as files for a browser, and the route to them.

Pages use the public API alone, so this package knows nothing of drawings, keys or money, and imports nothing of the
rest. `static/` holds the files: `base/` those of both pages, `vendor/` those of other projects, and a folder for each
page. There is no build step: a browser gets the files as they lie there.

Begin with `routes`.
"""
