"""The official OpenAI SDK, unchanged, against every provider behind the mesh."""
import os

import openai

base = os.environ["SKEIN_URL"] + "/v1"
client = openai.OpenAI(base_url=base, api_key=os.environ["SKEIN_API_KEY"], max_retries=0)
chat = client.chat.completions.create
question = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}]

for model in ["openai/echo", "anthropic/claude-echo", "replicate/meta/echo"]:
    answer = chat(model=model, messages=question)
    assert answer.choices[0].message.content == "You said: Say hello", (model, answer)
    assert answer.choices[0].finish_reason == "stop", (model, answer)
    chunks = list(
        chat(model=model, messages=question, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said: Say hello", (model, text)
    assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices, (model, chunks[-1])
    silent = list(chat(model=model, messages=question, stream=True))
    assert all(c.choices and not c.usage for c in silent), "usage that nobody asked for"

tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
for model in ["openai/tool", "anthropic/tool"]:
    called = chat(model=model, messages=question, tools=tools, tool_choice="required")
    message = called.choices[0].message
    call = message.tool_calls[0]
    assert call.function.name == "weather", (model, called)
    assert call.function.arguments == '{"city":"Lisbon"}', (model, called)
    assert called.choices[0].finish_reason == "tool_calls", (model, called)
    # And the second turn, with what the tool said.
    turn = question + [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    again = chat(model=model.replace("tool", "echo"), messages=turn, tools=tools)
    assert again.choices[0].message.content, (model, again)


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}")


for provider in ["openai", "anthropic"]:
    long = fails(
        openai.BadRequestError, lambda: chat(model=f"{provider}/error-context", messages=question)
    )
    assert long.code == "context_length_exceeded", long
    # Last: a key that has nothing left to spend rests for every model.
    fails(openai.RateLimitError, lambda: chat(model=f"{provider}/error-quota", messages=question))
print("ok")
