"""The official OpenAI client, unchanged, against the fake at OPENAI_BASE_URL."""

import asyncio
import base64
import os
import struct
import urllib.request

import openai
import pydantic

client = openai.OpenAI(max_retries=0, timeout=20)
question = [{"role": "user", "content": "where do geese fly"}]
said = "You said: where do geese fly"


def create(model, **more):
    return client.chat.completions.create(model=model, messages=more.pop("messages", question), **more)


def streamed(model, **more):
    chunks = list(create(model, stream=True, **more))
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks


def fails(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__}")


# Chat, whole and streamed.
answer = create("gpt-4o-mini")
assert answer.choices[0].message.content == said and answer.choices[0].finish_reason == "stop"
assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 6), answer.usage
text, chunks = streamed("gpt-4o-mini", stream_options={"include_usage": True})
assert text == said and chunks[-1].usage == answer.usage and not chunks[-1].choices
assert streamed("gpt-4o-mini")[1][-1].usage is None
raw = client.chat.completions.with_raw_response.create(model="m", messages=question)
assert raw.headers["x-request-id"].startswith("req_") and raw.parse()._request_id == raw.headers["x-request-id"]
assert int(raw.headers["x-ratelimit-remaining-requests"]) < int(raw.headers["x-ratelimit-limit-requests"])
assert create("m", max_completion_tokens=2).choices[0].finish_reason == "length"
assert create("m", stop=["geese"]).choices[0].message.content == "You said: where do "
likely = create("m", logprobs=True, top_logprobs=1).choices[0].logprobs.content
assert "".join(token.token for token in likely) == said and likely[0].top_logprobs[0].logprob == -0.25
streamed_tokens = [t.token for c in streamed("m", logprobs=True)[1] if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
assert "".join(streamed_tokens) == said, streamed_tokens
assert len(create("m", n=3).choices) == 3
by_index = {}
for chunk in streamed("m", n=3)[1]:
    for choice in chunk.choices:
        by_index[choice.index] = by_index.get(choice.index, "") + (choice.delta.content or "")
assert sorted(by_index) == [0, 1, 2] and by_index[2] == said + " (2)", by_index

# Pictures in, refusals, reasoning.
picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
seen = create("m", messages=[{"role": "user", "content": [{"type": "text", "text": "what is it"}, picture]}])
assert seen.usage.prompt_tokens == 3 + 85 and seen.choices[0].message.content == "You said: what is it"
assert create("refusal").choices[0].message.refusal == "I cannot help with that."
refused = "".join(c.choices[0].delta.refusal or "" for c in create("refusal", stream=True))
assert refused == "I cannot help with that."
assert create("thinking").usage.completion_tokens_details.reasoning_tokens == 5

# Tools: whole, in pieces, at once; the helper that joins them.
tools = [{"type": "function", "function": {"name": "weather", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}}]
call = create("tool", tools=tools).choices[0].message.tool_calls[0]
assert (call.id, call.function.name, call.function.arguments) == ("call_fake", "weather", '{"city":"Lisbon"}')
for model in ["tool", "tool-whole"]:
    with client.chat.completions.stream(model=model, messages=question, tools=tools) as stream:
        stream.until_done()
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.tool_calls[0].function.parsed_arguments == {"city": "Lisbon"}, choice
told = [{"role": "assistant", "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "mild"}]
assert create("tool", tools=tools, messages=question + told).choices[0].message.content == "You said: mild"


class Goose(pydantic.BaseModel):
    name: str
    age: int
    wild: bool


parsed = client.chat.completions.parse(model="m", messages=question, response_format=Goose)
assert isinstance(parsed.choices[0].message.parsed, Goose), parsed

# Embeddings: base64 unasked, floats on request, order, limits.
made = client.embeddings.create(model="text-embedding-3-small", input=["one", "two", "one"])
one, two, again = (item.embedding for item in made.data)
assert one == again != two and len(one) == 1536 and [item.index for item in made.data] == [0, 1, 2]
assert abs(sum(value * value for value in one) - 1) < 1e-4 and made.usage.prompt_tokens == 3
floats = client.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")
assert all(abs(a - b) < 1e-6 for a, b in zip(floats.data[0].embedding, one))
packed = client.embeddings.create(model="m", input="one", encoding_format="base64", dimensions=4).data[0].embedding
assert len(struct.unpack("<4f", base64.b64decode(packed))) == 4
error = fails(openai.BadRequestError, lambda: client.embeddings.create(model="m", input=["x"] * 2049))
assert error.param == "input"
fails(openai.BadRequestError, lambda: client.embeddings.create(model="text-embedding-3-small", input="x", dimensions=9999))

# Images: data and usage from one family, URLs from the other.
image = client.images.generate(model="gpt-image-1", prompt="a goose", size="1024x1536")
assert base64.b64decode(image.data[0].b64_json).startswith(b"\x89PNG") and image.usage.output_tokens == 1056
error = fails(openai.BadRequestError, lambda: client.images.generate(model="gpt-image-1", prompt="x", response_format="url"))
assert (error.param, error.code) == ("response_format", "unknown_parameter")
url = client.images.generate(model="dall-e-3", prompt="a goose").data[0].url
with urllib.request.urlopen(url) as response:
    assert response.headers["content-type"] == "image/png" and response.read().startswith(b"\x89PNG")
kinds = [e.type for e in client.images.generate(model="gpt-image-1", prompt="x", stream=True, partial_images=2)]
assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds

assert "gpt-4o-mini" in [model.id for model in client.models.list()]
assert client.models.retrieve("gpt-4o").id == "gpt-4o"

# Errors are of the classes the client has for them.
for model, kind, code in [
    ("error-400", openai.BadRequestError, "unsupported_parameter"),
    ("error-401", openai.AuthenticationError, "invalid_api_key"),
    ("error-403", openai.PermissionDeniedError, "unsupported_country"),
    ("error-404", openai.NotFoundError, "model_not_found"),
    ("error-409", openai.ConflictError, None),
    ("error-422", openai.UnprocessableEntityError, None),
    ("error-429", openai.RateLimitError, "rate_limit_exceeded"),
    ("error-quota", openai.RateLimitError, "insufficient_quota"),
    ("error-context", openai.BadRequestError, "context_length_exceeded"),
    ("error-filter", openai.BadRequestError, "content_policy_violation"),
    ("error-500", openai.InternalServerError, None),
    ("html-502", openai.InternalServerError, None),
    ("reset", openai.APIConnectionError, None),
    ("close", openai.APIConnectionError, None),
]:
    error = fails(kind, lambda: create(model))
    assert error.code == code, (model, error.code)
fails(openai.AuthenticationError, lambda: openai.OpenAI(api_key="sk-wrong", max_retries=0).models.list())
fails(openai.APITimeoutError, lambda: client.with_options(timeout=0.3).chat.completions.create(model="silent", messages=question))
error = fails(openai.BadRequestError, lambda: create("gpt-5-mini", max_tokens=5))
assert error.param == "max_tokens"

# Streams that are unusual but right, and streams that break.
for model in ["each-byte", "crlf", "pings", "gzip", "no-done", "empty-first", "paced-1"]:
    assert streamed(model)[0] == said, model
fails(openai.APIError, lambda: streamed("error-in-stream"))
for model in ["cut", "cut-reset"]:
    fails(openai.APIConnectionError, lambda: streamed(model))
assert streamed("cut-clean")[0] == "one two ", "this client does not notice"
fails(openai.APITimeoutError, lambda: list(client.with_options(timeout=0.3).chat.completions.create(
    model="stall", messages=question, stream=True)))

# Recordings say the same however they are cut.
for name in filter(None, os.environ["RECORDED"].split(",")):
    whole, *cut = ([chunk.to_dict() for chunk in create(name, stream=True)] for _ in range(3))
    assert whole and all(chunks == whole for chunks in cut), name

# Retries, as the client documents them: two, unless the server says otherwise.
retrying = openai.OpenAI(timeout=20)
ask = lambda model: retrying.chat.completions.create(model=model, messages=question)
assert ask("limited-once").choices[0].message.content == said
assert ask("reset-once").choices[0].message.content == said
fails(openai.InternalServerError, lambda: ask("always-500"))
fails(openai.RateLimitError, lambda: ask("do-not-retry"))
fails(openai.RateLimitError, lambda: ask("long-wait"))


async def concurrently():
    async with openai.AsyncOpenAI() as client:
        async def one():
            stream = await client.chat.completions.create(model="paced-2", messages=question, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        return await asyncio.gather(*(one() for _ in range(8)))


assert asyncio.run(concurrently()) == [said] * 8
print("ok")
