# reimagined in a container, as any user. One mount from outside, /reimagine, holds configuration, folders and ledger:
# in one, so that drops move by a rename; and from outside, since all of it has to outlive the container.
# README.md, "In a container", shows the commands.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/reimagined /usr/local/bin/
# The user who comes may have no name and no home, so that nothing is looked for there. The last of these is where
# secrets are mounted: one named segmind-api-key is the key.
ENV REIMAGINED_CONFIG=/reimagine/config.toml \
    STATE_DIRECTORY=/reimagine/state \
    CREDENTIALS_DIRECTORY=/run/secrets
USER 1000:1000
ENTRYPOINT ["reimagined"]
CMD ["run"]
