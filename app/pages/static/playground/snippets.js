/** A request as code that somebody can run: curl, Python, Node. The key stands in the environment, never in the text. */

const QUOTED = (value) => `'${String(value).replaceAll("'", `'\\''`)}'`;

/** JSON is Python but for three words. */
function python(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  return JSON.stringify(value);
}

// The fields that the official SDKs know by name; others go into their `extra_body`.
const KNOWN = new Set(["model", "prompt", "n", "size", "quality", "output_format", "background"]);

/**
 * @param {{operation: string, fields: Record<string, any>, pictures: string[], mask: string | null}} request `pictures`
 *   and `mask` are names of files
 * @param {string} base the gateway's address, with `v1` and no slash at its end
 */
export function snippets(request, base) {
  return { curl: curl(request, base), Python: pythonCode(request, base), Node: node(request, base) };
}

function curl({ operation, fields, pictures, mask }, base) {
  const lines = [`curl -f ${QUOTED(`${base}/images/${operation}`)}`, `-H "Authorization: Bearer $IMAGE_GATEWAY_KEY"`];
  if (operation === "generations") {
    lines.push("-H 'Content-Type: application/json'", `-d ${QUOTED(JSON.stringify(fields))}`);
  } else {
    for (const [name, value] of Object.entries(fields)) lines.push(`--form-string ${QUOTED(`${name}=${value}`)}`);
    const field = operation === "edits" ? "image[]" : "image";
    for (const name of pictures) lines.push(`-F ${QUOTED(`${field}=@${name}`)}`);
    if (mask) lines.push(`-F ${QUOTED(`mask=@${mask}`)}`);
  }
  return lines.join(" \\\n  ");
}

function sorted(fields) {
  const pairs = Object.entries(fields);
  return [pairs.filter(([name]) => KNOWN.has(name)), pairs.filter(([name]) => !KNOWN.has(name))];
}

const METHODS = { generations: "generate", edits: "edit", variations: "create_variation" };

function pythonCode({ operation, fields, pictures, mask }, base) {
  const [known, extra] = sorted(fields);
  const lines = known.map(([name, value]) => `    ${name}=${python(value)},`);
  if (operation === "edits") lines.push(`    image=[${pictures.map((name) => `open(${python(name)}, "rb")`).join(", ")}],`);
  if (operation === "variations") lines.push(`    image=open(${python(pictures[0] ?? "picture.png")}, "rb"),`);
  if (mask) lines.push(`    mask=open(${python(mask)}, "rb"),`);
  if (extra.length) lines.push(`    extra_body={${extra.map(([name, value]) => `"${name}": ${python(value)}`).join(", ")}},`);
  return [
    "import base64, os", "", "from openai import OpenAI", "",
    `client = OpenAI(base_url=${python(base)}, api_key=os.environ.get("IMAGE_GATEWAY_KEY", "none"))`,
    `result = client.images.${METHODS[operation]}(`, ...lines, ")",
    "for index, image in enumerate(result.data):",
    '    with open(f"picture-{index}.png", "wb") as file:',
    "        file.write(base64.b64decode(image.b64_json))",
  ].join("\n");
}

function node({ operation, fields, pictures, mask }, base) {
  const method = { generations: "generate", edits: "edit", variations: "createVariation" }[operation];
  const lines = Object.entries(fields).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  const stream = (name) => `createReadStream(${JSON.stringify(name)})`;
  if (operation === "edits") lines.push(`  image: [${pictures.map(stream).join(", ")}],`);
  if (operation === "variations") lines.push(`  image: ${stream(pictures[0] ?? "picture.png")},`);
  if (mask) lines.push(`  mask: ${stream(mask)},`);
  const read = operation === "generations" ? "writeFileSync" : "createReadStream, writeFileSync";
  return [
    `import { ${read} } from "node:fs";`, 'import OpenAI from "openai";', "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: process.env.IMAGE_GATEWAY_KEY ?? "none" });`,
    `const result = await client.images.${method}({`, ...lines, "});",
    "result.data.forEach((image, index) => {",
    '  writeFileSync(`picture-${index}.png`, Buffer.from(image.b64_json, "base64"));', "});",
  ].join("\n");
}
