// The whole life cycle through the unmodified openai client for Node.
// COPE_URL ends in /v1; COPE_KEY is a project's key, COPE_ADMIN_KEY the operator's. Run: node --test client.test.mjs
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const baseURL = process.env.COPE_URL;
const client = new OpenAI({ baseURL, apiKey: process.env.COPE_KEY, maxRetries: 0 });
const admin = new OpenAI({ baseURL, adminAPIKey: process.env.COPE_ADMIN_KEY, maxRetries: 0 });
const ANSWER = "The answer is \\boxed{5}";
const ask = (content) => ({ model: "cope", messages: [{ role: "user", content }] });
const described = await (await fetch(baseURL.replace(/\/v1$/, "/openapi.json"))).json();
const served = (path, method) => described.paths[path]?.[method] !== undefined;

async function until(look, good) {
  for (;;) {
    const seen = await look();
    if (good(seen)) return seen;
    await sleep(20);
  }
}

async function submit(endpoint, bodies) {
  const lines = bodies.map((body, n) => JSON.stringify({ custom_id: `line-${n}`, method: "POST", url: endpoint, body }));
  const file = await client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "in.jsonl"), purpose: "batch" });
  const batch = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
  assert.equal(batch.status, "validating");
  return until(() => client.batches.retrieve(batch.id), (seen) => ["completed", "failed"].includes(seen.status));
}

async function refused(promise, type, fields) {
  const error = await promise.then(() => assert.fail("it was not refused"), (thrown) => thrown);
  assert.ok(error instanceof type, `${error}`);
  for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, `${name} of ${error}`);
}

test("files are created, listed, read back byte for byte and deleted", async () => {
  const text = '{"a": "ä"}\n';
  const made = await client.files.create({ file: await toFile(Buffer.from(text), "x.jsonl"), purpose: "batch" });
  assert.equal(made.bytes, Buffer.byteLength(text));
  assert.equal(await (await client.files.content(made.id)).text(), text);
  assert.equal((await client.files.retrieve(made.id)).filename, "x.jsonl");
  assert.equal((await client.files.delete(made.id)).deleted, true);
  await refused(client.files.retrieve(made.id), OpenAI.NotFoundError, { status: 404 });
});

test("a batch of chat completions runs to its output file", async () => {
  const done = await submit("/v1/chat/completions", [ask("2 + 3?"), ask("never agreed on")]);
  assert.equal(done.status, "completed");
  assert.deepEqual([done.request_counts.total, done.request_counts.completed, done.request_counts.failed], [2, 2, 0]);
  const text = await (await client.files.content(done.output_file_id)).text();
  const rows = text.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(rows.map((row) => row.custom_id).sort(), ["line-0", "line-1"]);
  for (const row of rows) assert.equal(row.response.body.object, "chat.completion");
});

test("a batch of responses runs to its output file", async () => {
  const done = await submit("/v1/responses", [{ model: "cope", input: "2 + 3?" }]);
  const row = JSON.parse(await (await client.files.content(done.output_file_id)).text());
  assert.equal(row.response.body.object, "response");
  assert.equal(row.response.body.output[0].content[0].text, ANSWER);
});

test("a bad line fails its batch by its number", async () => {
  const failed = await submit("/v1/chat/completions", [ask("2 + 3?"), { model: "nobody", messages: [] }]);
  assert.equal(failed.status, "failed");
  assert.deepEqual(failed.errors.data.map((error) => error.line), [2]);
});

test("lists page by themselves", async () => {
  const made = new Set();
  for (let n = 0; n < 5; n += 1) {
    made.add((await client.files.create({ file: await toFile(Buffer.from("{}\n"), "x"), purpose: "batch" })).id);
  }
  const seen = [];
  for await (const file of client.files.list({ limit: 2 })) seen.push(file.id);
  assert.equal(new Set(seen).size, seen.length);
  for (const id of made) assert.ok(seen.includes(id));
  const batches = [];
  for await (const batch of client.batches.list({ limit: 1 })) batches.push(batch.id);
  assert.equal(new Set(batches).size, batches.length);
});

test("a chat completion is answered, and streamed with its usage", async () => {
  const made = await client.chat.completions.create(ask("2 + 3?"));
  assert.equal(made.choices[0].message.content, ANSWER);
  assert.equal(made.cope.stage, 1);
  assert.ok(made._request_id.startsWith("req_"));
  let text = "";
  let usage = null;
  const stream = await client.chat.completions.create({
    ...ask("2 + 3?"), stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, ANSWER);
  assert.equal(usage.total_tokens, 30);
});

test("a response is answered, streamed, and gone on from", async () => {
  const made = await client.responses.create({ model: "cope", input: "2 + 3?", instructions: "Be brief." });
  assert.equal(made.output_text, ANSWER);
  const events = [];
  for await (const event of await client.responses.create({ model: "cope", input: "2 + 3?", stream: true })) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, n) => n));
  assert.equal(events.at(-1).type, "response.completed");
  const final = await client.responses.stream({ model: "cope", input: "2 + 3?" }).finalResponse();
  assert.equal(final.output_text, ANSWER);
  const next = await client.responses.create({ model: "cope", input: "Sure?", previous_response_id: made.id });
  assert.equal(next.previous_response_id, made.id);
});

test("a background response is polled, cancelled and deleted", async () => {
  const made = await client.responses.create({ model: "cope", input: "2 + 3?", background: true });
  const done = await until(() => client.responses.retrieve(made.id), (seen) => !["queued", "in_progress"].includes(seen.status));
  assert.equal(done.output_text, ANSWER);
  assert.equal((await client.responses.cancel(made.id)).status, "completed");
  await client.responses.delete(made.id);
  await refused(client.responses.retrieve(made.id), OpenAI.NotFoundError, { status: 404, code: "not_found" });
});

test("errors have their class, code and parameter", async () => {
  const stranger = new OpenAI({ baseURL, apiKey: "cope-sk-nobody", maxRetries: 0 });
  await refused(stranger.models.list(), OpenAI.AuthenticationError, { status: 401, code: "invalid_api_key" });
  await refused(admin.get("/models", { __security: { adminAPIKeyAuth: true } }), OpenAI.APIError, {});
  await refused(client.chat.completions.create({ ...ask("x"), tools: [{ type: "function" }] }), OpenAI.BadRequestError, {
    status: 400, code: "unsupported_parameter", param: "tools", type: "invalid_request_error",
  });
  await refused(client.responses.create({ model: "cope", input: "x", truncation: "auto" }), OpenAI.BadRequestError, {
    param: "truncation",
  });
  await refused(client.batches.retrieve("batch_nothing"), OpenAI.NotFoundError, { status: 404 });
  await refused(client.batches.cancel((await submit("/v1/chat/completions", [ask("2 + 3?")])).id),
    OpenAI.UnprocessableEntityError, { code: "batch_not_cancellable" });
});

test("models are listed and retrieved", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("cope") && names.includes("small"));
  assert.equal((await client.models.retrieve("cope")).owned_by, "cope");
});

test("webhook endpoints are managed, and what they are sent is verified", async () => {
  const made = await client.webhooks.create({ url: "https://example.com/x", name: "x", event_types: ["response.completed"] });
  assert.ok(made.signing_secret.startsWith("whsec_"));
  const seen = [];
  for await (const endpoint of client.webhooks.list()) seen.push(endpoint.id);
  assert.ok(seen.includes(made.id));
  const one = await client.webhooks.retrieve(made.id);
  assert.deepEqual([one.event_types, one.signing_secret], [["response.completed"], undefined]);
  const body = JSON.stringify({ id: "evt_1", object: "event", type: "response.completed", created_at: 1, data: { id: "resp_1" } });
  const at = `${Math.floor(Date.now() / 1000)}`;
  const key = Buffer.from(made.signing_secret.slice("whsec_".length), "base64");
  const signature = createHmac("sha256", key).update(`evt_1.${at}.${body}`).digest("base64");
  const headers = { "webhook-id": "evt_1", "webhook-timestamp": at, "webhook-signature": `v1,${signature}` };
  assert.equal((await client.webhooks.unwrap(body, headers, made.signing_secret)).data.id, "resp_1");
  if (served("/v1/webhook_endpoints/{endpoint_id}", "post")) {
    assert.equal((await client.webhooks.update(made.id, { name: "y" })).name, "y");
  }
  if (served("/v1/webhook_endpoints/{endpoint_id}/rotate_secret", "post")) {
    assert.notEqual((await client.webhooks.rotateSecret(made.id)).signing_secret, made.signing_secret);
  }
  if (served("/v1/webhook_endpoints/{endpoint_id}/test", "post")) {
    const tried = await client.webhooks.test(made.id, { event_type: "response.completed" });
    assert.equal(tried.event_type, "response.completed");
  }
  await client.webhooks.delete(made.id);
  await refused(client.webhooks.retrieve(made.id), OpenAI.NotFoundError, { status: 404 });
});

test("the operator makes a project and a key, and its spending cap refuses without retries", async () => {
  const project = await admin.admin.organization.projects.create({ name: "from node" });
  const account = await admin.admin.organization.projects.serviceAccounts.create(project.id, { name: "k" });
  await admin.post(`/organization/projects/${project.id}/spend_limit`, {
    body: { threshold_amount: 0 }, __security: { adminAPIKeyAuth: true },
  });
  const poor = new OpenAI({ baseURL, apiKey: account.api_key.value });
  const began = Date.now();
  await refused(poor.chat.completions.create({ ...ask("2 + 3?"), model: "large" }), OpenAI.RateLimitError, {
    status: 429, code: "project_spend_limit_exceeded", type: "insufficient_quota",
  });
  assert.ok(Date.now() - began < 5000, "a refusal that time does not mend is not repeated");
});
