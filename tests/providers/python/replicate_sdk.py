"""The official Replicate client, unchanged, against the fake at REPLICATE_BASE_URL."""

import asyncio
import http.server
import io
import os
import threading
import urllib.request

import replicate
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import InvalidSignatureError, Webhooks

model = "meta/meta-llama-3-8b-instruct"
given = {"prompt": "where do geese fly"}
said = "You said: where do geese fly"


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


# Run: an official model, and a version whose output is an iterator.
assert "".join(replicate.run(model, input=given)) == said
version = replicate.models.get(model).latest_version
assert "".join(replicate.run(f"{model}:{version.id}", input=given)) == said
assert replicate.models.get(model).versions.get(version.id).id == version.id
assert model in [f"{found.owner}/{found.name}" for found in replicate.models.list()]
assert replicate.models.search("llama").results and replicate.default_client.accounts.current().username == "fake"

# Stream.
events = list(replicate.stream(model, input=given))
assert "".join(str(event) for event in events) == said
assert [event.id for event in events] == [f"1690212292:{at}" for at in range(7)]
assert events[-1].event.value == "done"
for unusual in ["each-byte", "crlf", "pings", "gzip", "paced-2"]:
    assert "".join(str(event) for event in replicate.stream(f"acme/{unusual}", input=given)) == said, unusual
fails(RuntimeError, lambda: list(replicate.stream("acme/fails", input=given)))

# Predictions: create, poll, list, cancel.
made = replicate.predictions.create(version=version.id, input=given)
assert made.status == "starting" and made.output is None, made
made.wait()
assert made.status == "succeeded" and "".join(made.output) == said
assert made.metrics["output_token_count"] == 6 and made.metrics["predict_time"] > 0
assert made.id in [found.id for found in replicate.predictions.list()]
endless = replicate.models.predictions.create("acme/slow-5", input=given)
seen = []
for event in endless.stream():
    seen.append(event)
    if len(seen) == 3:
        endless.cancel()
assert endless.status == "canceled" and seen[-1].event.value == "done" and "canceled" in seen[-1].data
made.cancel()
assert made.status == "succeeded", "success wins"
deployed = replicate.deployments.predictions.create(deployment="acme/chat", input=given)
deployed.wait()
assert "".join(deployed.output) == said
unfinished = replicate.models.predictions.create("acme/run-60000", input=given, wait=1)
assert unfinished.status == "processing"
unfinished.cancel()

# Pictures: one, or a list.
one = replicate.run("black-forest-labs/flux-1.1-pro", input=given)
several = replicate.run("black-forest-labs/flux-schnell", input={**given, "num_outputs": 2})
assert len(several) == 2 and isinstance(one, str)
with urllib.request.urlopen(one) as response:
    assert response.headers["content-type"] == "image/png" and response.read().startswith(b"\x89PNG")

# Files, by themselves and as input.
held = io.BytesIO(b"\x00\r\n\xff")
held.name = "a.bin"
file = replicate.files.create(held)
assert (replicate.files.get(file.id).name, file.size) == ("a.bin", 4) and len(replicate.files.list()) == 1
used = replicate.predictions.create(version=version.id, input={**given, "file": io.BytesIO(b"x")})
assert used.input["file"].startswith(os.environ["REPLICATE_BASE_URL"])
assert replicate.files.delete(file.id) and len(replicate.files.list()) == 1

# Errors.
failed = fails(ModelError, lambda: replicate.run("acme/fails", input=given))
assert failed.prediction.error == "CUDA out of memory"
error = fails(ReplicateError, lambda: replicate.run("acme/error-429", input=given))
assert (error.status, error.detail) == (429, "Request was throttled. Your rate limit resets in ~30s.")
for name, status in [("error-401", 401), ("error-quota", 402), ("error-404", 404), ("error-500", 500), ("error-503", 503)]:
    assert fails(ReplicateError, lambda: replicate.run(f"acme/{name}", input=given)).status == status
assert fails(ReplicateError, lambda: replicate.predictions.get("none")).status == 404
wrong = replicate.Client(api_token="r8-wrong")
assert fails(ReplicateError, lambda: wrong.accounts.current()).status == 401

# A read is tried again, a create is not (the test counts).
assert replicate.hardware.list()
fails(ReplicateError, lambda: replicate.run("acme/busy", input=given))


async def concurrently():
    async def one():
        made = await replicate.models.predictions.async_create(model, input=given)
        await made.async_wait()
        events = [event async for event in made.async_stream()]
        return "".join(made.output), "".join(str(event) for event in events)
    return await asyncio.gather(*(one() for _ in range(8)))


assert asyncio.run(concurrently()) == [(said, said)] * 8


class Hook(http.server.BaseHTTPRequestHandler):
    received = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        Hook.received.append((dict(self.headers), body))
        self.send_response(200)
        self.end_headers()
        if '"succeeded"' in body:
            done.set()

    def log_message(self, *_):
        pass


hooks = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=hooks.serve_forever, daemon=True).start()


def told(client):
    """The last webhook of a prediction of `client`."""
    global done
    done = threading.Event()
    client.models.predictions.create(model, input=given, webhook=f"http://127.0.0.1:{hooks.server_port}/")
    assert done.wait(20)
    return Hook.received[-1]


secret = replicate.webhooks.default.secret()
headers, body = told(replicate.default_client)
Webhooks.validate(headers=headers, body=body, secret=secret, tolerance=60)
fails(InvalidSignatureError, lambda: Webhooks.validate(headers=headers, body=body + " ", secret=secret))
headers, body = told(replicate.Client(api_token="r8_fake", base_url=os.environ["FORGING_URL"]))
fails(InvalidSignatureError, lambda: Webhooks.validate(headers=headers, body=body, secret=secret))
print("ok")
