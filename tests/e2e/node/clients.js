// Connect's gRPC and gRPC-Web clients with generated stubs, and OpenAI's SDK.
import assert from "node:assert/strict";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import OpenAI from "openai";
import { ModelService, Role } from "./gen/skein/model/v1/model_pb.js";

const baseUrl = process.env.SKEIN_URL;
const apiKey = process.env.SKEIN_API_KEY;
const headers = { authorization: `Bearer ${apiKey}` };
const passage = "The heron stands in the reeds. Its nest is built of willow twigs.";
const question = "What is the nest of the heron built of?";
const request = {
  model: "local/extractive",
  messages: [{ role: Role.USER, content: [{ part: { case: "text", value: question } }] }],
  passages: [{
    collection: "birds",
    documentId: "heron.md",
    chunkId: "1",
    text: passage,
    span: { start: 0n, end: BigInt(passage.length) },
  }],
};

const transports = {
  grpc: createGrpcTransport({ baseUrl }),
  "grpc-web": createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
};
for (const [name, transport] of Object.entries(transports)) {
  const client = createClient(ModelService, transport);
  const kinds = [];
  const quotes = [];
  let text = "";
  for await (const { event } of client.generate(request, { headers })) {
    kinds.push(event.case);
    if (event.case !== "delta") continue;
    const { piece } = event.value;
    if (piece.case === "text") text += piece.value;
    if (piece.case === "citation") quotes.push(piece.value.quote);
  }
  assert.equal(kinds[0], "started", name);
  assert.equal(kinds.at(-1), "finished", name);
  assert.equal(kinds.filter((kind) => kind === "finished").length, 1, name);
  assert.match(text, /willow twigs/, name);
  assert.ok(quotes.length > 0 && quotes.every((quote) => passage.includes(quote)), name);

  const { models } = await client.listModels({}, { headers });
  assert.ok(models.some(({ id }) => id === "local/extractive"), name);
  const refused = (code) => (error) => error instanceof ConnectError && error.code === code;
  const unknown = client.generate({ ...request, model: "local/no-such-model" }, { headers });
  const first = unknown[Symbol.asyncIterator]().next();
  await assert.rejects(first, refused(Code.NotFound), name);
  // Over HTTP/2 alone: a refusal that waits for no body ends a connection of
  // HTTP/1.1, and Node may see the closed socket before it reads the refusal.
  if (name === "grpc") {
    await assert.rejects(client.listModels({}), refused(Code.Unauthenticated), name);
  }
}

const openai = new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey, maxRetries: 0 });
const stream = await openai.chat.completions.create({
  model: "local/extractive",
  messages: [{ role: "user", content: `${passage} ${question}` }],
  stream: true,
  stream_options: { include_usage: true },
});
let chunks = 0;
let usage;
let finish;
for await (const chunk of stream) {
  chunks += 1;
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
assert.ok(chunks > 1);
assert.equal(finish, "stop");
assert.ok(usage.total_tokens > 0);
const stranger = new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey: "sk-skein-nobody-000000000000000" });
await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
console.log("ok");
