# syntax=docker/dockerfile:1
# triaged in a small image: the program with its rules and models inside, glibc, CA certificates, and nothing else; no
# shell, no package manager, user 65532.
#
#   docker build -t triaged:local .
#   docker build --target debug --output type=local,dest=. .       # triaged.debug, the debug information of that very build
#
# Tags name what was tested. For builds that can be repeated bit for bit, pin each base by digest:
#   --build-arg RUST_IMAGE=rust@sha256:... --build-arg RUNTIME_IMAGE=gcr.io/distroless/cc-debian12@sha256:...
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# What OpenSSL, librdkafka and jemalloc are built with, beside the image's C compiler. Versions follow the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# zlib goes into the program: the runtime image has none. Paths of the builder do not get into it.
ENV LIBZ_SYS_STATIC=1 \
    CARGO_TERM_COLOR=never \
    RUSTFLAGS="--remap-path-prefix=/src=/triaged --remap-path-prefix=/usr/local/cargo=/cargo"

# All dependencies, in a layer that only these two files change. The manifest's targets must be there, however empty.
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    mkdir src tests benches; \
    touch src/lib.rs; \
    echo 'fn main() {}' > src/main.rs; \
    cp src/main.rs tests/; \
    sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml | while read -r bench; do cp src/main.rs "benches/$bench.rs"; done; \
    cargo build --locked --release; \
    rm -r src

COPY config config
COPY models models
COPY schemas schemas
COPY src src
# What `triaged --version` names.
ARG TRIAGED_COMMIT
# The sources of a checkout are older than what was just built of the empty ones: cargo would take that for done.
# The debug information, four fifths of the bytes, goes into a file of its own, which the program names.
# Whatever the program needs beyond glibc and libgcc would be missing in the runtime image, so it ends the build here.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    find src -exec touch {} +; \
    cargo build --locked --release --bin triaged; \
    mkdir /out; \
    objcopy --only-keep-debug target/release/triaged /out/triaged.debug; \
    objcopy --strip-debug --add-gnu-debuglink=/out/triaged.debug target/release/triaged /out/triaged; \
    if ldd /out/triaged | grep -vE 'linux-vdso|ld-linux|lib(c|m|gcc_s|dl|pthread|rt)\.so'; then exit 1; fi; \
    /out/triaged check --strict

FROM scratch AS debug
COPY --from=build /out/triaged.debug /

FROM ${RUNTIME_IMAGE}
ARG TRIAGED_COMMIT
LABEL org.opencontainers.image.title="triaged" \
      org.opencontainers.image.description="Tickets and log lines from Kafka to routed queue events" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${TRIAGED_COMMIT}"
COPY --from=build /out/triaged /usr/local/bin/triaged
# A container's own loopback is reachable by nobody else.
ENV TRIAGED_OPS__LISTEN=0.0.0.0:9464
EXPOSE 9464
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["/usr/local/bin/triaged", "health"]
ENTRYPOINT ["/usr/local/bin/triaged"]
CMD ["run"]
