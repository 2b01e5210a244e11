// Against a live service on the reference model; its address is in CERT_TEST_COORDINATION_URL.
import assert from "node:assert/strict";
import { test } from "node:test";

import { CoordinationClient, ProblemError } from "../dist/index.js";

const url = process.env.CERT_TEST_COORDINATION_URL;
assert.ok(url, "CERT_TEST_COORDINATION_URL is not set");
const client = new CoordinationClient({ url });
const tasks = [{ text: "Where was Nobody Known born?", references: ["Amber Bay"] }];

test("a measurement is made once, followed and read", async () => {
  const asked = { tasks, systems: ["vote"], evaluator: "normalized", max_tokens: 16, seed: 1 };
  const job = await client.measure(asked, "node-1");
  assert.equal((await client.measure(asked, "node-1")).id, job.id);
  const events = [];
  for await (const event of client.follow(job.id)) events.push(event);
  assert.equal(events.at(-1).data.state, "succeeded");
  assert.equal((await client.measurement(job.id)).done, 1);
  const later = [];
  for await (const event of client.follow(job.id, events[0].id)) later.push(event.id);
  assert.deepEqual(later, events.slice(1).map((event) => event.id));
});

test("a measurement that ended is deleted, and one that is not there is a problem", async () => {
  const job = await client.measure({ tasks, systems: ["vote"], evaluator: "normalized", max_tokens: 16, seed: 2 });
  for await (const event of client.follow(job.id)) assert.ok(event.id);
  await client.delete(job.id);
  await assert.rejects(client.measurement(job.id), (error) => error.status === 404);
  await assert.rejects(client.delete(job.id), (error) => error.status === 404);
  const unknown = { id: "d_none", alarm: null };
  await assert.rejects(client.acknowledge(unknown), (error) => error.status === 404);
});

test("a refusal is a problem with its code", async () => {
  await assert.rejects(client.measure({ tasks, systems: ["nonsense"], evaluator: "normalized" }), ProblemError);
  await assert.rejects(client.measurement("nobody"), (error) => error.status === 404);
});
