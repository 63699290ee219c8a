# A stand-in for OpenClaw's own image, as far as guardfs can tell: the same Debian, /app with openclaw.mjs, the user node with
# id 1000, and its command. OpenClaw and Node are those that tests.gateway.install has put into the cache, which is the context.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG OPENCLAW_VERSION
RUN useradd --uid 1000 --create-home --shell /bin/bash node && ln -s /srv/node_modules/openclaw /app
COPY node-24/node_modules/node/bin/node /usr/local/bin/node
COPY openclaw-${OPENCLAW_VERSION}/node_modules /srv/node_modules
WORKDIR /app
USER node
CMD ["node", "openclaw.mjs", "gateway", "--allow-unconfigured"]
