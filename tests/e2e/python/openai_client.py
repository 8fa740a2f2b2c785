"""The official OpenAI SDK, unchanged, against the mesh."""
import os

import openai

base = os.environ["SKEIN_URL"] + "/v1"
client = openai.OpenAI(base_url=base, api_key=os.environ["SKEIN_API_KEY"], max_retries=0)

models = [model.id for model in client.models.list()]
assert "local/extractive" in models, models
assert "agent/default" in models, models

question = [{"role": "user", "content": "Say hello"}]
answer = client.chat.completions.create(model="openai/echo", messages=question)
assert answer.choices[0].message.content == "You said: Say hello", answer
assert answer.choices[0].finish_reason == "stop", answer
assert answer.usage.total_tokens > 0, answer

chunks = list(
    client.chat.completions.create(
        model="openai/echo", messages=question, stream=True, stream_options={"include_usage": True}
    )
)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == "You said: Say hello", text
assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices, chunks[-1]

tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
called = client.chat.completions.create(model="openai/tool", messages=question, tools=tools)
call = called.choices[0].message.tool_calls[0]
assert call.function.name == "weather" and call.function.arguments == '{"city":"Lisbon"}', called

two = client.embeddings.create(model="openai/text-embedding-3-small", input=["one", "two"])
assert [item.index for item in two.data] == [0, 1] and two.data[0].embedding != two.data[1].embedding
floats = client.embeddings.create(
    model="openai/text-embedding-3-small", input="one", encoding_format="float"
)
assert len(floats.data[0].embedding) == len(two.data[0].embedding)
assert all(abs(a - b) < 1e-6 for a, b in zip(floats.data[0].embedding, two.data[0].embedding))


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}")


chat = client.chat.completions.create
fails(openai.BadRequestError, lambda: chat(model="openai/echo", messages=[]))
negative = fails(
    openai.BadRequestError, lambda: chat(model="openai/echo", messages=question, max_tokens=-5)
)
assert "max_tokens" in str(negative), negative
fails(openai.NotFoundError, lambda: chat(model="local/no-such-model", messages=question))
stranger = openai.OpenAI(base_url=base, api_key="sk-skein-nobody-000000000000000", max_retries=0)
fails(openai.AuthenticationError, lambda: list(stranger.models.list()))
limited = fails(openai.RateLimitError, lambda: chat(model="openai/error-429", messages=question))
print("ok", limited.status_code)
