# The program without build and test tools. Both stages use the same Python, because
# the virtual environment points to it.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements-build.lock requirements-run.lock requirements-export.lock \
    requirements-alerts.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /build/tools \
    && /build/tools/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes -r requirements-build.lock
# docker build --build-arg EXTRAS="export alerts" .
ARG EXTRAS=""
RUN python -m venv --without-pip /opt/orchestra-etl \
    && set -- -r requirements-run.lock \
    && for extra in $EXTRAS; do set -- "$@" -r "requirements-$extra.lock"; done \
    && /build/tools/bin/pip --python /opt/orchestra-etl/bin/python install --no-cache-dir \
        --disable-pip-version-check --require-hashes "$@"
COPY migrations migrations
COPY etl etl
RUN /build/tools/bin/python -m build --wheel --no-isolation --outdir /build/dist . \
    && /build/tools/bin/pip --python /opt/orchestra-etl/bin/python install --no-cache-dir \
        --disable-pip-version-check --no-deps /build/dist/*.whl

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --create-home etl
COPY --from=build /opt/orchestra-etl /opt/orchestra-etl
ENV PATH=/opt/orchestra-etl/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORCHESTRA_ETL_SERVICE__HOST=0.0.0.0
USER 10001
WORKDIR /app
EXPOSE 8484
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8484/livez', timeout=4)"]
ENTRYPOINT ["orchestra-etl"]
CMD ["serve"]
# docker build --build-arg VERSION=1.0.0 --build-arg REVISION="$(git rev-parse HEAD)" .
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="orchestra-etl" \
    org.opencontainers.image.description="The durable run history of Orchestra AI workflows, in PostgreSQL" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
