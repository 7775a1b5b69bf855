// Calls of openapi-fetch with the types that openapi-typescript has made of the document (./api), without a cast.
// What came of each is printed as JSON. Arguments: the gateway's address, and a key.

import createClient from "openapi-fetch";
import type { components, paths } from "./api";

declare const process: { argv: string[] };  // the one thing of Node's own here

const [baseUrl, key] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
const schnell = "black-forest-labs/FLUX.1-schnell";
const kontext = "black-forest-labs/FLUX.1-Kontext-dev";

const picture = (answer: components["schemas"]["ImagesResponse"] | undefined): string => answer?.data[0]?.b64_json ?? "";
const kind = (base64: string): string => atob(base64).slice(1, 4);

const drawn = await client.POST("/v1/images/generations", {
  params: { header: { "X-Request-Id": "typed-1" } },
  body: { model: schnell, prompt: "a fox", size: "256x256", quality: "high", output_format: "png", seed: 7 },
});
const least = await client.POST("/v1/images/generations", { body: { model: schnell, prompt: "a fox" } });
const edited = await client.POST("/v1/images/edits", {
  body: {
    model: kontext,
    prompt: "make it night",
    images: [{ image_url: `data:image/png;base64,${picture(drawn.data)}` }],
  },
});
const refused = await client.POST("/v1/images/generations", { body: { model: "no such model", prompt: "a fox" } });
const listed = await client.GET("/v1/models");
const found = await client.GET("/v1/models/{model}", { params: { path: { model: schnell } } });

// @ts-expect-error: nothing here is of the type `any`.
void drawn.data?.data[0]?.no_such_field;

const seen: Record<string, string | number | boolean | null | undefined> = {
  draws: kind(picture(drawn.data)),
  draws_with_the_least: kind(picture(least.data)),
  seed: drawn.data?.data[0]?.seed,
  request_id: drawn.response.headers.get("x-request-id"),
  edits: kind(picture(edited.data)),
  refuses: refused.error?.error.param,
  lists: listed.data?.data.some((model) => model.id === schnell),
  retrieves: found.data?.id,
  edits_with_it: found.data?.capabilities.operations?.includes("edits"),
};
console.log(JSON.stringify(seen));
