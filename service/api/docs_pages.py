"""The API documentation at /docs.

The page loads nothing from other servers. It is not in the OpenAPI document.
"""

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from hsoftmax.service.errors import NotFound

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_CACHED = {"cache-control": "public, max-age=86400"}


docs_routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@docs_routes.get("/docs")
async def show_docs() -> HTMLResponse:
    return _swagger()


@docs_routes.get("/docs/{asset}")
async def show_asset(asset: str) -> Response:
    if asset not in _ASSETS:
        raise NotFound("there is no such page here: see /docs")
    # The package contains Swagger UI, so the page works without a network.
    content = files("fastapi_offline").joinpath("static", asset).read_bytes()
    return Response(content, media_type=_ASSETS[asset], headers=_CACHED)


@cache
def _swagger() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="hsoftmax API",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        swagger_ui_parameters={
            "validatorUrl": None
        },  # the default sends the document to a public validator
    )
