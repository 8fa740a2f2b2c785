"""Stubs generated from proto/ by grpcio-tools, a streamed call with them."""
import os
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

proto = pathlib.Path(os.environ["SKEIN_PROTO"])
out = tempfile.mkdtemp()
files = [str(path.relative_to(proto)) for path in proto.glob("skein/**/*.proto")]
include = pathlib.Path(protoc.__file__).parent / "_proto"
code = protoc.main(
    ["protoc", f"-I{proto}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
)
assert code == 0
sys.path.insert(0, out)
from skein.model.v1 import model_pb2 as m  # noqa: E402
from skein.model.v1 import model_pb2_grpc  # noqa: E402

channel = grpc.insecure_channel(os.environ["SKEIN_URL"].removeprefix("http://"))
stub = model_pb2_grpc.ModelServiceStub(channel)
key = [("authorization", "Bearer " + os.environ["SKEIN_API_KEY"])]
hello = m.Message(role=m.ROLE_USER, content=[m.ContentPart(text="Say hello")])
events = list(stub.Generate(m.GenerateRequest(model="openai/echo", messages=[hello]), metadata=key))
kinds = [event.WhichOneof("event") for event in events]
assert kinds[0] == "started" and kinds[-1] == "finished" and kinds.count("finished") == 1, kinds
assert "".join(e.delta.text for e in events) == "You said: Say hello", events

slow = m.GenerateRequest(model="openai/slow-20", messages=[hello])
try:
    list(stub.Generate(slow, metadata=key, timeout=0.3))
    raise AssertionError("a stream outlived its deadline")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
print("ok")
