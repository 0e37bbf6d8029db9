# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The stand-in as a program, with the flags of the real one. Ends at SIGTERM."""

import argparse
import json
import os
import signal
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from model_server import batching, grpc_services, rest, versions


def main():
    """Serves until SIGTERM; prints its ports as one JSON line when it is ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_base_path", required=True)
    parser.add_argument("--model_name", default="matnet")
    parser.add_argument("--port", type=int, default=0, help="of gRPC; 0 for any")
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--enable_batching", action="store_true")
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1.0)
    args = parser.parse_args()

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    served = versions.Versions(
        args.model_base_path,
        args.model_name,
        args.file_system_poll_wait_seconds,
        batching.Batcher if args.enable_batching else None,
    )
    served.start()
    http_server = rest.make_server(served, args.rest_api_port)
    grpc_server, port = grpc_services.make_server(served, args.port)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    grpc_server.start()
    print(json.dumps({"rest": http_server.server_address[1], "grpc": port}), flush=True)
    ended.wait()
    http_server.shutdown()
    grpc_server.stop(5).wait()
    served.stop()


if __name__ == "__main__":
    main()
