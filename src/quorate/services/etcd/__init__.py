"""The etcd v3 service: a replicated multi-version store and the door by which etcd's clients use it.

Design and what differs from etcd: docs/services/etcd.md.
"""
