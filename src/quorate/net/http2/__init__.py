"""HTTP/2 without I/O, both ends: bytes in, events out, bytes out (RFC 9113)."""
