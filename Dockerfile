# Clarion in one image: locked packages, no compiler, no root. The store lies in /data.
#
#   docker build -t clarion .
#   docker run -p 8080:8080 -v clarion-data:/data --env-file clarion.env clarion

FROM python:3.13-slim AS build

WORKDIR /src
RUN python -m venv /opt/clarion
ENV PATH=/opt/clarion/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The packages change less often than the code: a layer of their own.
COPY requirements.lock ./
RUN pip install --require-hashes --no-deps -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY bot ./bot
COPY broadcast ./broadcast
COPY presence ./presence
COPY sandbox ./sandbox
COPY storage ./storage
RUN pip install --no-deps --no-build-isolation .


FROM python:3.13-slim

RUN useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin clarion
COPY --from=build /opt/clarion /opt/clarion

ENV PATH=/opt/clarion/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CLARION_HOST=0.0.0.0 \
    CLARION_PORT=8080 \
    CLARION_STORE=sqlite:////data/clarion.db

USER clarion
WORKDIR /data
VOLUME /data
EXPOSE 8080

HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"CLARION_PORT\"]}/healthz', timeout=4)"]

# SIGTERM ends it in order: nothing new is claimed, what is in flight is recorded.
STOPSIGNAL SIGTERM
ENTRYPOINT ["clarion"]
CMD ["serve"]
