// Against a live service on the reference model; its address is in CERT_TEST_URL.
import assert from "node:assert/strict";
import { test } from "node:test";

import { BrokenStreamError, eventsOf, HamiltonianClient, ProblemError } from "../dist/index.js";

const url = process.env.CERT_TEST_URL;
assert.ok(url, "CERT_TEST_URL is not set");
const client = new HamiltonianClient({ url });
const prompt = "The birth city of";

test("an answer is analysed and listed", async () => {
  const answer = await client.analyze({ prompt, max_new_tokens: 5, detail: "full" });
  assert.ok(["pass", "fail"].includes(answer.analysis.verdict));
  assert.equal(answer.analysis.tokens.id.length, answer.analysis.signals.n_tokens);
  const ids = [];
  for await (const one of client.analyses(1)) ids.push(one.id);
  assert.ok(ids.includes(answer.id));
});

test("a stream has tokens and ends with the whole", async () => {
  const events = [];
  for await (const event of client.stream({ prompt, max_new_tokens: 6 })) events.push(event);
  const last = events.at(-1);
  assert.equal(last.kind, "finished");
  const text = events.filter((event) => event.kind === "token").map((event) => event.text).join("");
  assert.equal(text.trim(), last.analysis.analysis.generated_text.trim());
});

test("a refusal is a problem with its code", async () => {
  await assert.rejects(client.analyze({ prompt, temperature: -1 }), (error) => {
    assert.ok(error instanceof ProblemError);
    assert.equal(error.status, 422);
    assert.equal(error.code, "invalid_request");
    return true;
  });
  await assert.rejects(client.stream({}).next(), ProblemError);
});

test("leaving a stream early ends it", async () => {
  for await (const event of client.stream({ prompt, max_new_tokens: 300, temperature: 1.5, seed: 3 })) {
    assert.equal(event.kind, "token");
    break;
  }
});

test("half a stream is no whole one", async () => {
  const half = 'event: token\ndata: {"text": "a", "token_id": 1, "alarm": null, "signals": null}\n\n';
  const answer = async () => new Response(half, { headers: { "Content-Type": "text/event-stream" } });
  const events = new HamiltonianClient({ url: "http://service", fetch: answer }).stream({ prompt });
  assert.equal((await events.next()).value.kind, "token");
  await assert.rejects(events.next(), BrokenStreamError);
});

test("events are read whatever the pieces in which they come", async () => {
  const text = ": still here\n\nid: 7\r\nevent: a\r\ndata: één\r\ndata: two\r\n\r\ndata: x\n\n";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 1000]) {
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of eventsOf(new Response(body))) found.push(event);
    assert.deepEqual(found, [
      { event: "a", data: "één\ntwo", id: "7" },
      { event: "message", data: "x", id: "7" },
    ]);
  }
});
