// What Node's official SDK sees of the admin API. Run with the address, an admin key and the gateway's time.
import OpenAI from "openai";

const [, , url, adminAPIKey, now] = process.argv;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", adminAPIKey, maxRetries: 0 });
const admin = client.admin.organization;
const seen = {};

for (const name of ["p0", "p1", "p2"]) await admin.projects.create({ name });
const projects = [];
for await (const project of admin.projects.list({ limit: 2 })) projects.push(project);
seen.projects = projects.map((project) => project.name).sort();
const id = projects[0].id;
const account = await admin.projects.serviceAccounts.create(id, { name: "ci" });
seen.account = account.api_key.value.slice(0, 4);
const keys = [];
for await (const key of admin.projects.apiKeys.list(id)) keys.push(key.name);
seen.keys = keys;
const limit = await admin.projects.rateLimits.updateRateLimit(`rl_${id}`, { project_id: id, max_images_per_1_minute: 30 });
seen.limit = limit.max_images_per_1_minute;
seen.archived = (await admin.projects.archive(id)).status;
const usage = await admin.usage.images({ start_time: Number(now) - 60, group_by: ["model"] });
seen.images = usage.data[0].results[0].images;
const costs = await admin.usage.costs({ start_time: Number(now) - 60, group_by: ["line_item"] });
seen.costs = costs.data[0].results[0].amount.value;
const events = await admin.auditLogs.list({ event_types: ["project.archived", "api_key.created"], limit: 10 });
seen.events = events.data.map((event) => event.type);
const extra = await admin.adminAPIKeys.create({ name: "spare" });
seen.deleted = (await admin.adminAPIKeys.delete(extra.id)).deleted;
console.log(JSON.stringify(seen));
