"""Images of Ceph's RADOS Block Device, by librbd."""
