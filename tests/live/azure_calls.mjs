// As azure_calls.py, with the Azure client of the official Node SDK; the SDK's name comes before the arguments.

const [sdk, address, apiKey, draws, edits, varies] = process.argv.slice(2);
const { AzureOpenAI, toFile } = await import(sdk);
const said = { endpoint: address, apiKey, maxRetries: 0 };
const client = new AzureOpenAI({ ...said, apiVersion: "2025-04-01-preview" });
const fixed = new AzureOpenAI({ ...said, apiVersion: "of no year", deployment: draws });
const asked = { prompt: "a fox", size: "256x256" };

const picture = (response) => Buffer.from(response.data[0].b64_json, "base64");
const kind = (response) => picture(response).subarray(1, 4).toString();
const caught = (call) => call.then(() => null, (error) => error);

const drawn = await client.images.generate({ model: draws, ...asked });
const file = () => toFile(picture(drawn), "photo.png", { type: "image/png" });
const events = [];
for await (const event of await client.images.generate({ model: draws, ...asked, stream: true })) events.push(event.type);
const refusal = await caught(client.images.generate({ model: "no such model", prompt: "a fox" }));
const seen = {
  generates: kind(drawn),
  edits: kind(await client.images.edit({ model: edits, prompt: "a fox", image: await file() })),
  varies: kind(await client.images.createVariation({ model: varies, image: await file() })),
  streams: events,
  lists: (await client.models.list()).data.some((model) => model.id === draws),
  retrieves: (await client.models.retrieve(draws)).id,
  generates_at_a_deployment: kind(await fixed.images.generate(asked)),
  generates_whatever_the_body_names: kind(await fixed.images.generate({ model: "no such model", ...asked })),
  refuses: [refusal.status, refusal.param],
  chats: (await caught(client.chat.completions.create({ model: draws, messages: [] }))).message,
  wrong_key: (await caught(new AzureOpenAI({ ...said, apiKey: "wrong", apiVersion: "1" }).models.list())).code,
};
console.log(JSON.stringify({ AzureOpenAI: seen }));
