"""Peer links: framed, one-way message connections between nodes, and snapshot transfers beside them.

`frames` cuts a byte stream into frames, `handshake` decides who may talk to whom, `links`
keeps a connection to every peer and accepts theirs, `transfer` carries snapshots.
"""
