# syntax=docker/dockerfile:1
# From the root of the repository: docker build -f docs/deploy/cpu.Dockerfile -t vlfau-stream .
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY models models
COPY calibration calibration
RUN python -m venv /opt/vlfau && /opt/vlfau/bin/pip install --no-cache-dir ".[parquet]"

FROM python:3.12-slim-bookworm
# Libraries that opencv-python loads, though no window is shown here.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --groups video --create-home vlfau \
    && install -d -o vlfau -g vlfau /cache /data
COPY --from=build /opt/vlfau /opt/vlfau
ENV PATH=/opt/vlfau/bin:$PATH VLFAU_CACHE=/cache
# A number, so that Kubernetes can see that it is not root. It has the groups of vlfau.
USER 1000
WORKDIR /data
VOLUME ["/cache"]
EXPOSE 5556
ENTRYPOINT ["vlfau-stream"]
CMD ["--check"]
