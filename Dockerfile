# A small image of larder. It runs as an ordinary user, with its database in /var/lib/larder.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Dependencies first, with empty crates. This layer is rebuilt only when a Cargo.toml or Cargo.lock
# changes.
COPY Cargo.toml Cargo.lock ./
COPY crates/larder-cache/Cargo.toml crates/larder-cache/
COPY crates/testkit/Cargo.toml crates/testkit/
RUN mkdir -p crates/larder-cache/src crates/testkit/src src tests benches/compare benches/micro \
 && echo 'fn main() {}' | tee src/main.rs tests/main.rs benches/outbox.rs benches/scale.rs \
      benches/compare/main.rs benches/micro/main.rs > benches/coherence.rs \
 && touch src/lib.rs crates/larder-cache/src/lib.rs crates/testkit/src/lib.rs \
 && cargo build --release --locked \
 && rm -rf crates src tests benches
COPY config.toml ./
COPY sql sql
COPY crates crates
COPY src src
# Cargo compares time stamps, and the real files may be older than the empty ones. Every target
# needs its file.
RUN mkdir -p tests benches/compare benches/micro \
 && echo 'fn main() {}' | tee tests/main.rs benches/outbox.rs benches/scale.rs \
      benches/compare/main.rs benches/micro/main.rs > benches/coherence.rs \
 && touch src/main.rs src/lib.rs crates/larder-cache/src/lib.rs \
 && cargo build --release --locked \
 && strip target/release/larder

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/larder --create-home --shell /usr/sbin/nologin larder
COPY --from=build /build/target/release/larder /usr/local/bin/larder
COPY config.toml /etc/larder/config.toml
USER larder
# SQLite's larder.db lands here when no DATABASE_URL is given.
WORKDIR /var/lib/larder
VOLUME /var/lib/larder
ENV LARDER_CONFIG=/etc/larder/config.toml \
    LARDER_BIND=0.0.0.0:8000
EXPOSE 8000
# The process drains on SIGTERM; see server.shutdown_grace.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["larder", "health"]
ENTRYPOINT ["larder"]
CMD ["serve"]
