"""A collector of traces: OTLP over gRPC, with OpenTelemetry's own message types. Prints its address, and then a line of JSON for
each span. Run by deploy/test-ops, with the Python of target/tools/traces."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def values(attributes):
    """Attributes as a dictionary of strings."""
    return {it.key: str(getattr(it.value, it.value.WhichOneof("value"))) for it in attributes}


class Collector(services.TraceServiceServicer):
    """Prints what it gets."""

    def Export(self, request, context):
        for group in request.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    told = {
                        "name": span.name,
                        "kind": Span.SpanKind.Name(span.kind),
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "attributes": values(span.attributes),
                        "resource": values(group.resource.attributes),
                    }
                    print(json.dumps(told), flush=True)
        return messages.ExportTraceServiceResponse()


server = grpc.server(ThreadPoolExecutor(1))
services.add_TraceServiceServicer_to_server(Collector(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"127.0.0.1:{port}", flush=True)
threading.Event().wait()
