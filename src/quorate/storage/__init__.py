"""What a node keeps on disk: one write-ahead log, snapshots, and whose folder it is.

Everything goes through `disk.Disk`.  Layouts and recovery rules are in docs/storage.md.
"""
