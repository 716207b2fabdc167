"""Queries and answers as named tensors: the Open Inference Protocol without its transport.

The REST routes under /v2 and the gRPC service read a `Tensor` for each input of a request, call
`infer`, and write the tensors of the result. Each operation declares which tensors it has.
"""
