"""Ids that live as long as somebody is heard on their behalf: sessions of ZooKeeper, leases of etcd."""
