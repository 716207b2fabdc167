"""HTTP API: the operations, bundles, jobs, administration, health checks and pages."""

from .admin import admin_routes
from .batches import batch_routes
from .docs_pages import docs_routes
from .error_handlers import add_error_handlers
from .files import file_routes
from .health_probes import health_routes, metrics_routes
from .labels import label_routes
from .models import bundle_routes
from .operations import Endpoint, operation_endpoints, operation_path
from .page import page_routes
from .rollouts import rollout_admin_routes, rollout_routes
from .score import SCORE_PATH, ScoreEndpoint

__all__ = [
    "SCORE_PATH",
    "Endpoint",
    "ScoreEndpoint",
    "add_error_handlers",
    "admin_routes",
    "batch_routes",
    "bundle_routes",
    "docs_routes",
    "file_routes",
    "health_routes",
    "label_routes",
    "metrics_routes",
    "operation_endpoints",
    "operation_path",
    "page_routes",
    "rollout_admin_routes",
    "rollout_routes",
]
