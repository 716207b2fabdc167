# syntax=docker/dockerfile:1
# The service alone: no exporter, no compiler, no shell script between the signal and the server.
#   docker build -t hsoftmax .                                  CPU
#   docker build -t hsoftmax:full --build-arg VARIANT=full .    and Parquet, Arrow, gRPC, traces, tokenizers
#   docker build -t hsoftmax:cuda --build-arg VARIANT=cuda .
#   docker run -p 8000:8000 --read-only --tmpfs /tmp -v ./repository:/models:ro -v hsoftmax-state:/state hsoftmax
# A release passes a digest: --build-arg PYTHON=python:3.12-slim-bookworm@sha256:...
ARG PYTHON=python:3.12-slim-bookworm

FROM ${PYTHON} AS build
ARG VARIANT=cpu
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# Only the environment of the build has pip: the service installs nothing.
RUN python -m venv --without-pip /opt/hsoftmax && python -m venv /opt/build
# Dependencies before code: this layer changes only when they do.
COPY requirements/build.txt requirements/${VARIANT}.txt requirements/
RUN /opt/build/bin/pip --python /opt/hsoftmax/bin/python install --no-cache-dir --require-hashes \
    -r requirements/${VARIANT}.txt
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY hatch_build.py ./
COPY native native
COPY models models
COPY bundle bundle
COPY runtime runtime
COPY featurizers featurizers
COPY scoring scoring
COPY stores stores
COPY exporter exporter
COPY service service
COPY hsoftmax hsoftmax
COPY examples/state_of_the_union examples/state_of_the_union
COPY examples/next_word examples/next_word
RUN /opt/build/bin/hatchling build --target wheel --directory /src/dist
RUN /opt/build/bin/pip --python /opt/hsoftmax/bin/python install --no-cache-dir --no-deps --no-index \
    --find-links /src/dist hsoftmax
# The software bill of materials: every package of the image, with the hashes it was locked with.
RUN /opt/build/bin/cyclonedx-py requirements requirements/${VARIANT}.txt --pyproject pyproject.toml \
    --mc-type application --output-reproducible --output-file /opt/hsoftmax/sbom.cdx.json

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hsoftmax" \
      org.opencontainers.image.description="Serve softmaxes over output spaces too large to score in full" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 hsoftmax && useradd --uid 10001 --gid 10001 --no-create-home hsoftmax \
    && install --directory --mode 700 --owner 10001 --group 10001 /state
COPY --from=build /opt/hsoftmax /opt/hsoftmax
ENV PATH=/opt/hsoftmax/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HSOFTMAX_REPOSITORY=/models \
    HSOFTMAX_STATE=/state \
    HSOFTMAX_HOST=0.0.0.0 \
    HSOFTMAX_PORT=8000
# Files and jobs: without a volume of one's own they go with the container.
VOLUME ["/state"]
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"HSOFTMAX_PORT\"]}/healthz/live', timeout=2)"]
ENTRYPOINT ["hsoftmax"]
CMD ["serve"]
