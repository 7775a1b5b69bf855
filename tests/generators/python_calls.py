"""Calls of a client that openapi-python-client has made (the package `client` in the working directory), and what came
of each as JSON. Arguments: the gateway's address, and a key."""

import base64
import io
import json
import sys

from client import AuthenticatedClient  # type: ignore[import-not-found]
from client.api.images import (  # type: ignore[import-not-found]
    create_image,
    create_image_edit,
    create_image_variation,
    get_run,
)
from client.api.models import list_models, retrieve_model  # type: ignore[import-not-found]
from client.models import (  # type: ignore[import-not-found]
    CreateImageBody,
    CreateImageEditFilesBody,
    CreateImageEditJsonBody,
    CreateImageEditJsonBodyImagesItem,
    CreateImageVariationBody,
    Error,
    ImagesResponse,
)
from client.types import File  # type: ignore[import-not-found]

address, key = sys.argv[1:]
KONTEXT, REDUX = "black-forest-labs/FLUX.1-Kontext-dev", "black-forest-labs/FLUX.1-Redux-dev"
SCHNELL = "black-forest-labs/FLUX.1-schnell"
client = AuthenticatedClient(base_url=address, token=key)


def picture(answer: object) -> bytes:
    assert isinstance(answer, ImagesResponse), answer
    return base64.b64decode(answer.data[0].b64_json)


def file() -> File:
    return File(io.BytesIO(drawn), "fox.png", "image/png")


answer = create_image.sync(client=client, body=CreateImageBody(model=SCHNELL, prompt="a fox", size="256x256"))
drawn = picture(answer)
by_form = CreateImageEditFilesBody(model=KONTEXT, prompt="make it night", image=file())
item = CreateImageEditJsonBodyImagesItem(image_url="data:image/png;base64," + base64.b64encode(drawn).decode())
by_json = CreateImageEditJsonBody(model=KONTEXT, prompt="make it night", images=[item])
varied = create_image_variation.sync(client=client, body=CreateImageVariationBody(model=REDUX, image=file()))
refused = create_image.sync(client=client, body=CreateImageBody(model="no such model", prompt="a fox"))
detailed = create_image.sync_detailed(client=client, body=CreateImageBody(model=SCHNELL, prompt="a fox"))
assert isinstance(refused, Error)
seen = {
    "draws": drawn[1:4].decode(),
    "edits": picture(create_image_edit.sync(client=client, body=by_form))[1:4].decode(),
    "edits_in_json": picture(create_image_edit.sync(client=client, body=by_json))[1:4].decode(),
    "varies": picture(varied)[1:4].decode(),
    "refuses": refused.error.param,
    "gets_it_again": picture(get_run.sync(detailed.headers["x-request-id"], client=client)) == picture(detailed.parsed),
    "lists": SCHNELL in [model.id for model in list_models.sync(client=client).data],
    "retrieves": retrieve_model.sync(SCHNELL, client=client).id,
}
print(json.dumps(seen))  # noqa: T201
