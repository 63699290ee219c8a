# The image of guardfs: a slim Debian with python3, fuse3 and guardfs, in which no compiler is left.
#
#   docker build -t guardfs .
#   docker build -t guardfs --secret id=pip.conf,src=/etc/pip.conf .     # an index of your own; kept nowhere
#
# Wants BuildKit, podman, or buildah 1.24 and later (RUN --mount). How an agent's image gets guardfs from this one, and what
# a container must be allowed: docs/containers.md.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The locked versions first: they change less often than guardfs does. pyfuse3 comes as source only, and is compiled here.
COPY requirements/build.txt requirements/runtime.txt requirements/
ARG PIP_INDEX_URL
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes --no-build-isolation -r requirements/build.txt \
    && /build/bin/pip wheel --no-cache-dir --require-hashes --no-build-isolation -w /wheels -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY policy policy
COPY guardfs guardfs
# The environment is made where it will be used, with Debian's python3, which the other stage has as well.
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation -w /wheels . \
    && python3 -m venv --without-pip /opt/guardfs \
    && /build/bin/pip --python /opt/guardfs/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends fuse3 python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/guardfs /opt/guardfs
RUN ln -s /opt/guardfs/bin/guardfs /usr/local/bin/guardfs && guardfs --version

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="guardfs" \
      org.opencontainers.image.description="A FUSE file system over an AI gateway's sessions directory: names who writes to a transcript, and fences it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# What must survive a new container: staged branches, tokens, the audit log.
VOLUME /var/lib/guardfs
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["guardfs", "status", "--check"]
ENTRYPOINT ["guardfs"]
CMD ["--help"]
