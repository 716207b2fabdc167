"""The routes, by whom they are for: clients with questions, clients who look, machines, people."""

from .admin import admin_routes
from .bundles import bundle_routes
from .health import health_routes
from .pages import page_routes
from .questions import question_path, question_routes

__all__ = [
    "admin_routes",
    "bundle_routes",
    "health_routes",
    "page_routes",
    "question_path",
    "question_routes",
]
