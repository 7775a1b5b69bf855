# The gateway, its locked packages and nothing that builds them. Ready for a read-only root: it writes to /data
# (finished images, undelivered runs, the URL signing secret) and /tmp only.

# Another base, or this one by its digest: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy \
    PATH=/opt/tools/bin:$PATH VIRTUAL_ENV=/opt/image-gateway
WORKDIR /build
COPY requirements-tools.lock requirements.lock ./
RUN python -m venv /opt/tools \
    && pip install --quiet --no-cache-dir --require-hashes --requirement requirements-tools.lock \
    && uv venv --quiet --python /opt/tools "$VIRTUAL_ENV" \
    && uv pip sync --quiet --no-cache --require-hashes --compile-bytecode requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN uv build --quiet --no-cache --wheel --no-build-isolation --python /opt/tools --out-dir dist \
    && uv pip install --quiet --no-cache --no-deps --compile-bytecode dist/*.whl \
    && mkdir /data

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Image Gateway" \
      org.opencontainers.image.description="One server that speaks the OpenAI Images API to a team and every image provider's own dialect to the outside" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/image-gateway /opt/image-gateway
COPY --from=build --chown=10001:10001 /data /data
ENV PATH=/opt/image-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    IMAGE_GATEWAY_DATA_DIR=/data \
    IMAGE_GATEWAY_SERVER__HOST=0.0.0.0 \
    IMAGE_GATEWAY_SERVER__PORT=8000
WORKDIR /data
VOLUME ["/data"]
USER 10001:10001
EXPOSE 8000
# Another port is set by IMAGE_GATEWAY_SERVER__PORT, so that this asks there too. No proxy is asked, whatever the environment says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['IMAGE_GATEWAY_SERVER__PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["image-gateway", "serve"]
