"""The official Anthropic client, unchanged, against the fake at ANTHROPIC_BASE_URL."""

import asyncio
import os

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=20)
question = [{"role": "user", "content": "where do geese fly"}]
said = "You said: where do geese fly"
tools = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def create(model, **more):
    return client.messages.create(model=model, messages=question, max_tokens=more.pop("max_tokens", 99), **more)


def streamed(model, **more):
    with client.messages.stream(model=model, messages=question, max_tokens=99, **more) as stream:
        text = "".join(stream.text_stream)
        return text, stream.get_final_message()


def fails(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__}")


# Messages, whole and streamed, count the same.
answer = create("claude-opus-5", system="be brief")
assert answer.content[0].text == said and answer.stop_reason == "end_turn"
assert (answer.usage.input_tokens, answer.usage.output_tokens) == (6, 6), answer.usage
text, message = streamed("claude-opus-5", system="be brief")
assert text == said == message.content[0].text and message.usage.output_tokens == 6, message
events = list(create("m", stream=True))
assert [events[0].type, events[1].type, events[-1].type] == ["message_start", "content_block_start", "message_stop"]
assert create("m", max_tokens=2).stop_reason == "max_tokens"
stopped = create("m", stop_sequences=["geese"])
assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "geese", "You said: where do ")
raw = client.messages.with_raw_response.create(model="m", messages=question, max_tokens=9)
assert raw.headers["request-id"].startswith("req_") and "T" in raw.headers["anthropic-ratelimit-tokens-reset"]
assert client.messages.count_tokens(model="m", messages=question).input_tokens == 4
assert "claude-haiku-4-5" in [model.id for model in client.models.list()]

# Thinking comes first, with its signature.
for message in [create("m", thinking={"type": "enabled", "budget_tokens": 1024}), streamed("thinking")[1]]:
    thinking, text = message.content
    assert thinking.type == "thinking" and thinking.thinking == "Let me think about it." and thinking.signature
    assert text.text == said and message.usage.output_tokens == 11, message

# Tools: arguments in pieces, none at all, two at once.
for message in [create("tool", tools=tools), streamed("tool", tools=tools)[1], streamed("tool-whole", tools=tools)[1]]:
    (block,) = message.content
    assert (block.type, block.name, block.input) == ("tool_use", "weather", {"city": "Lisbon"}), block
    assert message.stop_reason == "tool_use"
told = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "mild"}]}
more = client.messages.create(model="tool", max_tokens=99, tools=tools, messages=question + [
    {"role": "assistant", "content": [block.model_dump(exclude_none=True)]}, told])
assert more.stop_reason == "end_turn" and more.content[0].type == "text", more
_, message = streamed("two-tools", tools=tools)
assert [(b.type, getattr(b, "input", None)) for b in message.content] == [
    ("text", None), ("tool_use", {"city": "Oslo"}), ("tool_use", {})], message.content

# Refusals are an answer.
for message in [create("refusal"), streamed("refusal")[1]]:
    assert message.stop_reason == "refusal" and message.content == [], message
    assert message.stop_details.explanation == "I cannot help with that."

# Errors are of the classes the client has for them.
for model, kind in [
    ("error-400", anthropic.BadRequestError),
    ("error-context", anthropic.BadRequestError),
    ("error-401", anthropic.AuthenticationError),
    ("error-402", anthropic.PaymentRequiredError),
    ("error-403", anthropic.PermissionDeniedError),
    ("error-404", anthropic.NotFoundError),
    ("error-409", anthropic.ConflictError),
    ("error-413", anthropic.ContentTooLargeError),
    ("error-422", anthropic.UnprocessableEntityError),
    ("error-429", anthropic.RateLimitError),
    ("error-spend", anthropic.EnforcedSpendLimitReachedError),
    ("error-500", anthropic.InternalServerError),
    ("error-504", anthropic.GatewayTimeoutError),
    ("error-529", anthropic.OverloadedError),
    ("reset", anthropic.APIConnectionError),
]:
    fails(kind, lambda: create(model))
spend = fails(anthropic.EnforcedSpendLimitReachedError, lambda: create("error-spend"))
assert spend.body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
assert "retry-after" not in spend.response.headers
fails(anthropic.APITimeoutError, lambda: client.with_options(timeout=0.3).messages.create(model="silent", messages=question, max_tokens=9))
fails(anthropic.AuthenticationError, lambda: anthropic.Anthropic(api_key="sk-wrong", max_retries=0).models.list())
bearer = anthropic.Anthropic(api_key=None, auth_token="token", max_retries=0)
assert bearer.messages.create(model="m", messages=question, max_tokens=99).content[0].text == said

# Streams that are unusual but right, and streams that break.
for model in ["each-byte", "crlf", "pings", "gzip"]:
    assert streamed(model)[0] == said, model
try:
    streamed("error-in-stream")
    raise AssertionError("an error inside a stream is an error")
except anthropic.APIStatusError as error:
    assert "Overloaded" in str(error), repr(error)
for model in ["cut", "cut-reset"]:
    try:
        streamed(model)
        raise AssertionError(f"{model} is an error")
    except AssertionError:
        raise
    except Exception as error:
        assert "rotocol" in repr(type(error)) or "Read" in repr(type(error)) or "Connection" in repr(type(error)), repr(error)

# Recordings say the same however they are cut.
for name in filter(None, os.environ["RECORDED"].split(",")):
    whole, *cut = ([event.to_dict() for event in create(name, stream=True)] for _ in range(3))
    assert whole and all(events == whole for events in cut), name

# Retries, as the client documents them: two.
retrying = anthropic.Anthropic(timeout=20)
ask = lambda model: retrying.messages.create(model=model, messages=question, max_tokens=99)
assert ask("overloaded-once").content[0].text == said
fails(anthropic.InternalServerError, lambda: ask("always-500"))


async def concurrently():
    async with anthropic.AsyncAnthropic() as client:
        async def one():
            async with client.messages.stream(model="paced-2", messages=question, max_tokens=99) as stream:
                return "".join([text async for text in stream.text_stream])
        return await asyncio.gather(*(one() for _ in range(8)))


assert asyncio.run(concurrently()) == [said] * 8
print("ok")
