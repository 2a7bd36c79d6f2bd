# The service of one checkpoint, on a CPU:
#   docker build -t hblm .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/outputs/checkpoints/NAME:/model:ro" hblm
# Keys come after the name of the image: ... hblm threshold=0.4 access_log=true
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1

# before the code, so that a change of the code does not download it again; without its index it is the build
# for GPUs, ten times as large
RUN pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.6,<2.14"

COPY setup.cfg pyproject.toml README.md LICENSE /src/
COPY hblm /src/hblm
COPY conf /src/conf
COPY multirun /src/multirun
COPY datasets /src/datasets
RUN pip install "/src[serve]" && rm -r /src

RUN useradd --create-home hblm
USER hblm
WORKDIR /home/hblm

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]

# host=0.0.0.0 is the container's own network: -p decides who reaches it
ENTRYPOINT ["python", "-m", "hblm.serve", "checkpoint=/model", "host=0.0.0.0"]
