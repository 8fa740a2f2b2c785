"""grpcio with nothing but reflection: no file of the contract at hand."""
import os

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

target = os.environ["SKEIN_URL"].removeprefix("http://")
channel = grpc.insecure_channel(target)
database = ProtoReflectionDescriptorDatabase(channel)
services = database.get_services()
for name in ("agent.v1.AgentService", "model.v1.ModelService", "retrieval.v1.RetrievalService"):
    assert f"skein.{name}" in services, services

pool = DescriptorPool(database)
method = pool.FindServiceByName("skein.model.v1.ModelService").FindMethodByName("ListModels")
Request = message_factory.GetMessageClass(method.input_type)
Response = message_factory.GetMessageClass(method.output_type)
call = channel.unary_unary(
    "/skein.model.v1.ModelService/ListModels",
    request_serializer=Request.SerializeToString,
    response_deserializer=Response.FromString,
)
key = [("authorization", "Bearer " + os.environ["SKEIN_API_KEY"])]
models = [model.id for model in call(Request(), metadata=key).models]
assert "local/extractive" in models, models
try:
    call(Request())
    raise AssertionError("a call without a key was served")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
print("ok")
