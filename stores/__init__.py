"""Bundles in object stores: S3, Google Cloud Storage, Azure Blob Storage, HTTPS, a mounted folder.

`service` mirrors a store into a local folder, and the command line reads and writes bundles in it.
"""
