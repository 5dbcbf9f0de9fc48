FROM python:3.13-slim
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE alembic.ini ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY etl etl
COPY migrations migrations
COPY config config
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && useradd --system --create-home etl
USER etl
EXPOSE 8484
CMD ["orchestra-etl", "serve"]
