# One image for every command of the service. `--target development` is for Skaffold and Compose.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS build
COPY requirements/ /src/requirements/
# All comes as wheels, so there is no compiler here either. What builds our own wheel stays in /build.
RUN python3 -m venv /build \
    && python3 -m venv --without-pip /opt/venv \
    && /build/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r /src/requirements/build.txt \
    && /build/bin/python -m pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r /src/requirements/prod.txt
COPY pyproject.toml README.md LICENSE /src/
COPY app/ /src/app/
WORKDIR /src
# The demo master knows no passwords: it is kept out of production.
RUN /build/bin/python -m hatchling build -t wheel \
    && /build/bin/python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl \
    && mv /opt/venv/lib/python3*/site-packages/app/dev /dev-package

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chat-service" \
    org.opencontainers.image.description="Chat beside your product: Socket.IO for browsers, REST for the host application" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv/ /opt/venv/
# A folder to import from, so that nothing lies in the way of the packages.
WORKDIR /home
ENV PATH=/opt/venv/bin:$PATH HOME=/home PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
# REST and the internal API, Socket.IO, the worker's health and metrics, metrics
EXPOSE 4000 4001 4002 9090
# Process 1 itself: it handles SIGTERM and starts no other processes, so no init is needed.
ENTRYPOINT ["chat-service"]
CMD ["serve"]

# With the demo master, and with code that Skaffold may replace: whatever has ended is started again.
FROM runtime AS development
USER 0
COPY --from=build /dev-package/ /tmp/dev/
RUN ln -s /opt/venv/lib/python3*/site-packages/app /home/app \
    && mv /tmp/dev /home/app/dev \
    && chown -R 10001:10001 /home/app/
USER 10001:10001
ENTRYPOINT ["sh", "-c", "trap 'kill $!; wait; exit 0' TERM INT; while :; do chat-service \"$@\" & wait $!; done", "--"]

FROM runtime AS production
