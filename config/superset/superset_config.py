"""Superset's settings; Superset reads this file by the name in SUPERSET_CONFIG_PATH."""

from __future__ import annotations

import os
from pathlib import Path

_HOME = Path(os.environ["ORCHESTRA_DASHBOARDS_HOME"])

SECRET_KEY = (_HOME / "secret-key").read_text().strip()
SQLALCHEMY_DATABASE_URI = f"sqlite:///{_HOME / 'superset.db'}"
APP_NAME = "orchestra-etl"

# New runs keep arriving: what was asked is kept for half a minute only, which several viewers share. In the memory of the one
# server process: on a disk it would outlast the erasure of a run.
DATA_CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": 200, "CACHE_DEFAULT_TIMEOUT": 30}
DASHBOARD_AUTO_REFRESH_MODE = "fetch"
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

# The rollups are by the hour.
TIME_GRAIN_DENYLIST = ["PT1S", "PT5S", "PT30S", "PT1M", "PT5M", "PT10M", "PT15M", "PT30M"]
# Red, amber and green are left to the outcomes.
EXTRA_CATEGORICAL_COLOR_SCHEMES = [
    {
        "id": "orchestra",
        "label": "Orchestra",
        "description": "",
        "isDefault": False,
        "colors": [
            "#4A90D9",
            "#7B4FB5",
            "#1FA3B5",
            "#34568B",
            "#C06BB0",
            "#8D6E63",
            "#7FB2E5",
            "#B39DDB",
            "#6FC3CE",
            "#5C6BC0",
            "#DDA6D3",
            "#90A4AE",
        ],
    }
]
SQLLAB_TIMEOUT = SUPERSET_WEBSERVER_TIMEOUT = 60
ENABLE_PROXY_FIX = False
