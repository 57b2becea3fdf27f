# The command in an image, of this checkout:
#   docker build -t contextframe-beam .
#   docker run --rm -v "$PWD:/data" contextframe-beam ingest files --directory docs --to kb.lance
FROM python:3.12-slim AS build
WORKDIR /build
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# The extras of documents and vectors; others as in --build-arg EXTRAS=documents,embed,s3
ARG EXTRAS=documents,embed
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(echo /wheels/*.whl)[${EXTRAS}]" \
    && rm -rf /wheels \
    && useradd --uid 1000 --create-home contextframe
USER 1000
WORKDIR /data
ENTRYPOINT ["contextframe-beam"]
CMD ["--help"]
