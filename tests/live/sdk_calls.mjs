// Calls of the official Node SDK, and what came of each as JSON. Read from standard input, so that the SDK is found in
// the folder that Node runs in; the arguments are those of sdk_calls.py, with the SDK's name before them.

import fs from "node:fs";
import path from "node:path";

const [sdk, baseURL, apiKey, prefix, folder] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(sdk);
const { VERSION } = await import(`${sdk}/version`);

const GPT = "gpt-image-2";
const SCHNELL = "black-forest-labs/FLUX.1-schnell";
const KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev";
const REDUX = "black-forest-labs/FLUX.1-Redux-dev";

const client = new OpenAI({ baseURL, apiKey, timeout: 20_000 });
const at = (name) => path.join(folder, name);
const photo = fs.readFileSync(at("photo.png"));
const file = () => toFile(photo, "photo.png", { type: "image/png" });
const id = (name) => ({ headers: { "X-Request-Id": prefix + name } });

const kind = (text) => {
  const data = Buffer.from(text ?? "", "base64");
  const ends = data.subarray(-8).toString("latin1") === "IEND\xaeB`\x82";
  if (data.subarray(1, 4).toString() === "PNG" && ends) return `png ${data.readUInt32BE(16)}x${data.readUInt32BE(20)}`;
  return { ffd8: "jpeg", 5249: "webp" }[data.subarray(0, 2).toString("hex")] ?? "unknown";
};
const images = (response) => ({
  images: response.data.map((image) => kind(image.b64_json)),
  created: Number.isInteger(response.created) && response.created > 1_000_000_000,
  usage: response.usage
    ? [response.usage.total_tokens, response.usage.input_tokens].every(Number.isInteger)
    : null,
});
const generate = (name, more = {}) =>
  client.images.generate({ prompt: `a fox, ${prefix}${name}`, model: SCHNELL, size: "64x64", ...more }, id(name));
const edit = (name, image, more = {}) =>
  client.images.edit({ model: GPT, image, prompt: `a fox, ${prefix}${name}`, ...more }, id(name));
const stream = async (events) => {
  const seen = [];
  for await (const event of await events) seen.push([event.type, event.partial_image_index ?? null, kind(event.b64_json)]);
  return seen;
};
const models = (page) => ({ slash: page.data.some((model) => model.id === SCHNELL), object: page.data[0].object });

const calls = {
  // What must work.
  generates: async (name) => images(await generate(name)),
  generates_in_base64: async (name) => images(await generate(name, { response_format: "b64_json" })),
  generates_several: async (name) => images(await generate(name, { model: GPT, n: 2 })),
  generates_without_what_is_none: async (name) =>
    images(await generate(name, { n: null, quality: null, background: null, style: null, user: null, stream: null })),
  generates_with_an_extra_body: async (name) =>
    images(await generate(name, { size: undefined, seed: 7, guidance: 3.5, steps: 4, width: 64, height: 128 })),
  edits_a_file: async (name) => images(await edit(name, await file())),
  edits_a_buffer_without_a_name: async (name) => images(await edit(name, await toFile(photo))),
  edits_a_read_stream: async (name) =>
    images(await edit(name, fs.createReadStream(at("photo.png")), { mask: fs.createReadStream(at("mask.png")) })),
  edits_a_list_of_one: async (name) => images(await edit(name, [await file()])),
  edits_a_list_of_three: async (name) =>
    images(await edit(name, [await file(), await toFile(fs.createReadStream(at("photo.jpg"))), await file()])),
  edits_with_a_mask: async (name) =>
    images(await edit(name, await file(), { mask: await toFile(fs.readFileSync(at("mask.png")), "mask.png") })),
  edits_with_an_extra_body: async (name) => images(await edit(name, await file(), { model: KONTEXT, guidance: 3.5 })),
  edits_in_json: async () => {
    const url = `data:image/png;base64,${photo.toString("base64")}`;
    const body = { model: GPT, prompt: "a fox", images: [{ image_url: url }] };
    return (await client.post("/images/edits", { body })).data.map((image) => kind(image.b64_json));
  },
  varies: async (name) => images(await client.images.createVariation({ image: await file(), model: REDUX }, id(name))),
  streams: (name) => stream(generate(name, { model: GPT, stream: true })),
  streams_partial_images: (name) => stream(generate(name, { model: GPT, stream: true, partial_images: 2 })),
  streams_from_a_json_upstream: (name) => stream(generate(name, { stream: true })),
  streams_an_edit: async (name) => stream(edit(name, await file(), { stream: true, partial_images: 1 })),
  lists_models: async () => models(await client.models.list()),
  retrieves_a_model_with_a_slash: async () => {
    const model = await client.models.retrieve(SCHNELL);
    return [model.id, model.object, model.owned_by];
  },
  gives_a_raw_response: async (name) => {
    const { data, response, request_id } = await generate(name).withResponse();
    return {
      provider: response.headers.get("x-gateway-provider"),
      attempts: response.headers.get("x-gateway-attempts"),
      id: request_id,
      processing: /^\d+$/.test(response.headers.get("openai-processing-ms")),
      images: images(data).images,
    };
  },
  gives_a_streaming_response: async (name) => {
    const response = await generate(name).asResponse();
    return JSON.parse(await response.text()).data.map((image) => kind(image.b64_json));
  },
  tells_the_request_id: async (name) => (await generate(name))._request_id,
  generates_side_by_side: async (name) =>
    (await Promise.all(Array.from({ length: 8 }, () => generate(name)))).flatMap((response) => images(response).images),

  // What must fail, and how.
  refuses_a_size: async (name) => images(await generate(name, { size: "bogus" })),
  refuses_an_unknown_model: async (name) => images(await generate(name, { model: "nope" })),
  refuses_a_file_that_is_no_picture: async (name) => images(await edit(name, await toFile(Buffer.from("not a picture")))),
  refuses_a_wrong_key: (name) =>
    new OpenAI({ baseURL, apiKey: "sk-wrong-key-0000" }).images.generate({ prompt: "a fox", model: SCHNELL }, id(name)),
  finds_no_such_model: (name) => client.models.retrieve("nope/nope", id(name)),
  finds_no_such_path: (name) => client.post("/nope", { body: {}, ...id(name) }),
  is_limited_by_the_upstream: async (name) => images(await generate(name, { model: "limited" })),
  finds_the_upstream_busy: async (name) => images(await generate(name, { model: "busy" })),
  finds_the_upstream_silent: async (name) => images(await generate(name, { model: "silent" })),
  finds_the_account_refused: async (name) => images(await generate(name, { model: "locked" })),
  is_moderated: async (name) => images(await generate(name, { model: "strict" })),
  finds_the_answer_garbled: async (name) => images(await generate(name, { model: "garbled" })),
  finds_a_streams_upstream_busy: (name) => stream(generate(name, { model: "busy", stream: true })),
  sees_the_picture_break: async (name) => images(await generate(name, { model: "broken" })),
  sees_the_stream_fail: (name) => stream(generate(name, { model: "failing", stream: true, partial_images: 1 })),
  sees_the_streams_picture_break: (name) => stream(generate(name, { model: "broken", stream: true })),
};

const outcome = async (name, call) => {
  try {
    return { value: await call(name) };
  } catch (error) {
    const said = { raised: error.constructor.name, status: error.status ?? null };
    if (!(error instanceof OpenAI.APIError)) return { ...said, said: String(error) };
    for (const key of ["code", "param", "type"]) said[key] = error[key] ?? null;
    return { ...said, request_id: error.requestID ?? null, details: error.error?.moderation_details ?? null };
  }
};

const report = {};
for (const [name, call] of Object.entries(calls)) report[name] = await outcome(name, call);
console.log(JSON.stringify({ version: VERSION, calls: report }));
