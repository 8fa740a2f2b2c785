"""The official OpenAI SDK, unchanged, drawing through the mesh."""
import base64
import os
import urllib.request

import openai

base = os.environ["SKEIN_URL"] + "/v1"
client = openai.OpenAI(base_url=base, api_key=os.environ["SKEIN_API_KEY"], max_retries=0)
draw = client.images.generate
PNG = b"\x89PNG\r\n\x1a\n"
PROMPT = "three geese over a lake"


def is_png(data):
    return base64.b64decode(data).startswith(PNG)


# OpenAI: data with tokens and a cost, or a URL.
answer = draw(model="openai/gpt-image-2", prompt=PROMPT, n=2, size="64x64", quality="low")
assert len(answer.data) == 2 and all(is_png(item.b64_json) for item in answer.data), answer
assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
assert answer.output_format == "png" and answer.created > 0, answer

told = client.images.with_raw_response.generate(model="openai/gpt-image-2", prompt=PROMPT)
assert float(told.headers["x-skein-cost-usd"]) > 0, told.headers
assert told.headers["x-skein-model"] == "openai/gpt-image-2", told.headers

old = draw(model="openai/dall-e-3", prompt=PROMPT, response_format="url")
assert old.data[0].url.startswith("http") and old.data[0].revised_prompt, old
with urllib.request.urlopen(old.data[0].url) as picture:
    assert picture.read().startswith(PNG)

events = list(
    draw(model="openai/gpt-image-2", prompt=PROMPT, size="64x64", stream=True, partial_images=2)
)
kinds = [event.type.removeprefix("image_generation.") for event in events]
assert kinds == ["partial_image", "partial_image", "completed"], kinds
assert all(is_png(event.b64_json) for event in events)
assert events[-1].usage.total_tokens > 0, events[-1]

# Replicate: a URL as it gives it, data where it is asked for.
model = "replicate/black-forest-labs/flux-schnell"
given = draw(model=model, prompt=PROMPT, n=2, size="64x64")
assert len(given.data) == 2 and all(item.url.startswith("http") for item in given.data), given
data = draw(model=model, prompt=PROMPT, size="64x64", response_format="b64_json")
assert is_png(data.data[0].b64_json), data
slow = list(draw(model="replicate/flux/run-1500", prompt=PROMPT, stream=True))
assert [event.type for event in slow] == ["image_generation.completed"], slow


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}")


many = fails(openai.BadRequestError, lambda: draw(model="openai/gpt-image-2", prompt=PROMPT, n=11))
assert many.param == "n", many
homeless = fails(
    openai.BadRequestError,
    lambda: draw(model="openai/gpt-image-2", prompt=PROMPT, response_format="url"),
)
assert "BUCKET_NAME" in str(homeless), homeless
fails(openai.RateLimitError, lambda: draw(model="openai/error-429", prompt=PROMPT))
failed = fails(openai.InternalServerError, lambda: draw(model="replicate/flux/fails", prompt=PROMPT))
assert "CUDA" in str(failed) and PROMPT not in str(failed), failed
chat = fails(openai.APIError, lambda: draw(model="local/extractive", prompt=PROMPT))
assert "makes no pictures" in str(chat), chat
print("ok", len(events))
