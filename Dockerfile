# The server as a container, in two targets:
#   gpu  the real model on an NVIDIA GPU; pip's index gives torch's CUDA build
#   cpu  the demo model, and the API process of a cluster; point PIP_ARGS at PyTorch's CPU wheels (see docs/containers.md)
# Layers go from what changes least to what changes most: a change of the code rebuilds the last two.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
WORKDIR /build
COPY pyproject.toml ./
# torch by itself: the largest layer, and the one that changes least. Its version is the one in pyproject.toml.
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*(name for name in project['dependencies'] if name.startswith('torch==')))" > torch.txt && \
    pip --python /opt/venv/bin/python install ${PIP_ARGS} --requirement torch.txt && \
    rm -rf /opt/venv/lib/python3*/site-packages/torch/test
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['cluster'], *extras['demo'], *extras['tracing'], sep='\n')" > requirements.txt && \
    pip --python /opt/venv/bin/python install ${PIP_ARGS} --requirement requirements.txt && \
    find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +


# What only a compiler of kernels would read.
FROM dependencies AS dependencies-cpu
RUN rm -rf /opt/venv/lib/python3*/site-packages/torch/include /opt/venv/lib/python3*/site-packages/torch/bin/protoc*


# The code alone, in the same place: copied over the dependencies, it is a layer of a few MB.
FROM ${PYTHON_IMAGE} AS application
ARG PIP_ARGS=""
RUN python -m venv --without-pip /opt/venv
WORKDIR /build
COPY pyproject.toml README.md ./
COPY docs/LICENSE docs/NOTICE docs/
COPY configs configs
COPY weights weights
COPY pipeline pipeline
COPY server server
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    pip --python /opt/venv/bin/python install ${PIP_ARGS} --no-deps .


FROM ${PYTHON_IMAGE} AS base
# tini reaps the processes that a killed worker leaves, and passes signals on. Debian's own fixes are wanted.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* && \
    groupadd --gid 1000 hunyuan && \
    useradd --uid 1000 --gid 1000 --no-create-home --home-dir /data --shell /usr/sbin/nologin hunyuan && \
    install --directory --owner hunyuan --group hunyuan --mode 0750 /data /models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    XDG_CACHE_HOME=/data/cache \
    HF_HOME=/data/cache/huggingface \
    HUNYUAN_CUSTOM_DATA_DIR=/data \
    HUNYUAN_CUSTOM_API__HOST=0.0.0.0
WORKDIR /app
COPY configs configs
# Configurations name `models/bf16`, `models/safety`: where `weights prepare` puts them, in the volume.
RUN ln -s /models models
EXPOSE 8000
VOLUME ["/data", "/models"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "hunyuan-custom"]
LABEL org.opencontainers.image.title="hunyuan-custom-server" \
      org.opencontainers.image.description="Self-hosted, drop-in replacement of fal's fal-ai/hunyuan-custom endpoint" \
      org.opencontainers.image.licenses="Apache-2.0"


FROM base AS cpu
COPY --from=dependencies-cpu /opt/venv /opt/venv
COPY --from=application /opt/venv /opt/venv
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["hunyuan-custom", "health"]
CMD ["serve", "--config", "configs/demo.toml"]


FROM base AS gpu
# Triton compiles its kernels' launchers on this machine, with a C compiler and Python's headers (part of the image).
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends gcc g++ libc6-dev && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /opt/venv /opt/venv
USER 1000:1000
# Loading takes as long as the disk needs for 43 GB; until then the server is alive and not ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1800s CMD ["hunyuan-custom", "health"]
CMD ["serve", "--config", "configs/gpu-80gb.toml"]
