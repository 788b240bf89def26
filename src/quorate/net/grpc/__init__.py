"""gRPC on asyncio, over `quorate.net.http2` (the protocol document "gRPC over HTTP2" of grpc/grpc)."""
