"""Superset's settings; Superset reads this file by the name in SUPERSET_CONFIG_PATH."""

from __future__ import annotations

import os
from pathlib import Path

_HOME = Path(os.environ["ORCHESTRA_DASHBOARDS_HOME"])

SECRET_KEY = (_HOME / "secret-key").read_text().strip()
SQLALCHEMY_DATABASE_URI = f"sqlite:///{_HOME / 'superset.db'}"
APP_NAME = "orchestra-etl"

# Two runs of a chart may differ: new runs keep arriving. So results are not kept, and nothing else needs a cache.
DATA_CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
RATELIMIT_STORAGE_URI = "memory://"

# Nothing is asked of any other host: Superset's own list would allow a tracking pixel (which SCARF_ANALYTICS does not
# stop), map tiles and fonts.
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'", "data:"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # It serves this machine only, over HTTP.
    "force_https": False,
    "session_cookie_secure": False,
}

# Times in charts are the database's: UTC.
D3_TIME_FORMAT: dict[str, str] = {}
SQLLAB_TIMEOUT = SUPERSET_WEBSERVER_TIMEOUT = 60
ENABLE_PROXY_FIX = False
