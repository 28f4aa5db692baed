# The image of RamPuddle: `puddle` alone, for servers and for commands.
#
#   docker build --tag rampuddle/puddle .
#
# Needs BuildKit, which is the default since Docker 23 (before: DOCKER_BUILDKIT=1).
# Where the crates come through a proxy or a registry of your own, two optional secrets:
#
#   --secret id=cargo-config,src=config.toml       as in ~/.cargo/config.toml
#   --secret id=certificates,src=authorities.pem   who else is trusted
#
# With --build-arg PUDDLE_FROM=ready nothing is compiled: what is to be in the image lies
# in target/image, as deploy/image-tree.sh puts it there from a `puddle` that was built.
ARG PUDDLE_FROM=source
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS source
WORKDIR /source
COPY . .
# What was built before is kept between builds. A source that is older than that build
# but not the one it was built from must not pass for it, hence the touch.
RUN --mount=type=cache,id=rampuddle-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=rampuddle-target,target=/target,sharing=locked \
    --mount=type=secret,id=cargo-config \
    --mount=type=secret,id=certificates \
    set -eu; \
    if [ -s /run/secrets/cargo-config ]; then \
        cp /run/secrets/cargo-config "$CARGO_HOME/config.toml"; \
    fi; \
    if [ -s /run/secrets/certificates ]; then \
        export CARGO_HTTP_CAINFO=/run/secrets/certificates; \
    fi; \
    find . -type f -exec touch {} +; \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo build --release --locked --package puddle --target-dir /target; \
    install -D /target/release/puddle /made/usr/local/bin/puddle; \
    # Authorities, for services of discovery that are asked over TLS.
    install -D /etc/ssl/certs/ca-certificates.crt /made/etc/ssl/certs/ca-certificates.crt; \
    rm -f "$CARGO_HOME/config.toml"

FROM scratch AS ready
COPY target/image/ /made/

FROM ${PUDDLE_FROM} AS made

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="RamPuddle" \
      org.opencontainers.image.description="The memory of a cluster as one shared place for large files" \
      org.opencontainers.image.source="https://github.com/rampuddle/rampuddle" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 7117 puddle \
 && useradd --uid 7117 --gid 7117 --home-dir /data --no-create-home --shell /usr/sbin/nologin puddle \
 && install -d --owner puddle --group puddle /data
COPY --from=made /made/ /
USER 7117:7117
WORKDIR /data
# In a container the address that counts is the container's.
ENV PUDDLE_LISTEN=0.0.0.0:7117
EXPOSE 7117
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["puddle", "ping"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["puddle"]
CMD ["serve"]
