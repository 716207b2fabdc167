"""OpenAI's clients use the service's models, files and batches without changes."""

import pytest

from .environments import PROGRAMS, need, node_environment, python_environment, run

pytestmark = pytest.mark.clients


def test_python(server, tmp_path):
    python = python_environment("openai") / "python"
    run(python, PROGRAMS / "openai_python.py", f"http://{server.address}", tmp_path)


def test_node(server, tmp_path):
    folder = node_environment("openai-node")
    node = need("node", "nodejs npm")
    url = f"http://{server.address}"
    run(node, PROGRAMS / "openai_node.mjs", url, tmp_path, cwd=folder)
