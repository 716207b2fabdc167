"""Serves one of `apps` with a protocol class.

    python -m benchmarks.http.serve_app APP PORT [CLASS]

The class is `bounded` (the service's own, the default), or one of uvicorn's: `httptools`, `h11`.
"""

import sys

import uvicorn

from hsoftmax.service.http.protocol import BoundedProtocol

from . import apps


def main() -> None:
    name, port, protocol = (*sys.argv[1:], "bounded")[:3]
    http = BoundedProtocol if protocol == "bounded" else protocol
    uvicorn.run(
        getattr(apps, name),
        port=int(port),
        http=http,  # type: ignore[arg-type]
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
