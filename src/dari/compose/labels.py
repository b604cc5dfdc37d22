"""The labels by which Compose finds its own again. They are Docker Compose's, so its tools see our projects."""

from __future__ import annotations

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONEOFF = "com.docker.compose.oneoff"
CONFIG_HASH = "com.docker.compose.config-hash"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
ENVIRONMENT_FILE = "com.docker.compose.project.environment_file"
DEPENDS_ON = "com.docker.compose.depends_on"
IMAGE = "com.docker.compose.image"
REPLACE = "com.docker.compose.replace"
SLUG = "com.docker.compose.slug"
VERSION = "com.docker.compose.version"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"
# dari's own: a short hash per key of the service, so that a plan can say which keys changed.
KEYS = "dari.compose.keys"


def project_filter(project: str) -> dict[str, list[str]]:
    """The `filters` of a list call that finds everything of a project."""
    return {"label": [f"{PROJECT}={project}"]}
