"""The official OpenAI SDK with a key that may make three requests a minute."""
import os

import openai

base = os.environ["SKEIN_URL"] + "/v1"
client = openai.OpenAI(base_url=base, api_key=os.environ["SKEIN_API_KEY"], max_retries=0)
question = [{"role": "user", "content": "Say hello"}]

remaining = []
for _ in range(3):
    raw = client.chat.completions.with_raw_response.create(model="openai/echo", messages=question)
    assert raw.headers["x-ratelimit-limit-requests"] == "3", raw.headers
    remaining.append(raw.headers["x-ratelimit-remaining-requests"])
assert remaining == ["2", "1", "0"], remaining

try:
    client.chat.completions.create(model="openai/echo", messages=question)
    raise AssertionError("a fourth request passed")
except openai.RateLimitError as error:
    assert error.code == "rate_limit_exceeded", error
    headers = error.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60, headers
    assert headers["x-ratelimit-remaining-requests"] == "0", headers
    assert headers["x-ratelimit-reset-requests"].endswith("s"), headers
print("ok")
