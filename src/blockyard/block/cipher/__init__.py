"""Encrypted disks: LUKS2 and LUKS1 headers, and AES-XTS between what is stored and what is read."""
