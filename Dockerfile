# The images. docs/containers.md explains them.
#   docker build -t sisyphus-client .                     the worker, with all tools
#   docker build -t sisyphus-server --target server .     the API server, without them

ARG BASE=debian:trixie-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --home-dir /var/lib/sisyphus sisyphus \
    && install -d -o sisyphus -g sisyphus /media
ENV LANG=C.UTF-8 PATH=/opt/sisyphus-client/bin:$PATH SISYPHUS_STATE_DIR=/var/lib/sisyphus
ENTRYPOINT ["sisyphus-client"]

# pip and the build backend stay in here.
FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv --without-pip /opt/sisyphus-client \
    && python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && tools/bin/pip --python /opt/sisyphus-client/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY . checkout
RUN cd checkout \
    && PYTHONPATH=$(echo ../tools/lib/python*/site-packages) /opt/sisyphus-client/bin/python -m hatchling build -t wheel -d .. \
    && ../tools/bin/pip --python /opt/sisyphus-client/bin/python install --no-deps --no-index ../*.whl

FROM python AS server
COPY --from=build /opt/sisyphus-client /opt/sisyphus-client
USER sisyphus
WORKDIR /var/lib/sisyphus
VOLUME /var/lib/sisyphus
EXPOSE 5000
HEALTHCHECK --start-period=30s CMD ["/opt/sisyphus-client/bin/python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 5000, timeout=9); c.request('GET', '/status/health'); exit(c.getresponse().status != 200)"]
CMD ["serve", "--host", "0.0.0.0"]

FROM python AS client
# More of Debian's packages, such as the drivers of a GPU.
ARG PACKAGES=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg handbrake-cli mkvtoolnix ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sisyphus-client /opt/sisyphus-client
USER sisyphus
WORKDIR /media
VOLUME /var/lib/sisyphus
ENV METRICS_PORT=9100
HEALTHCHECK --start-period=30s CMD ["/opt/sisyphus-client/bin/python", "-c", \
    "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['METRICS_PORT'].rpartition(':')[2]), timeout=9); c.request('GET', '/metrics'); exit(c.getresponse().status != 200)"]
CMD ["start"]
