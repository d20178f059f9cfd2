# The explorer and the pipeline in one image. The PyPI wheels of torch bring their own CUDA libraries, so a slim base
# is enough; the host needs the NVIDIA driver (580 or newer for CUDA 13) and the NVIDIA container toolkit.
# Without a GPU the same image runs on the CPU.
FROM python:3.12-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HOME=/artifacts/huggingface \
    GRADIO_ANALYTICS_ENABLED=False

RUN groupadd --gid 10001 iconoscope \
 && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin iconoscope \
 && install -d -o iconoscope -g iconoscope /artifacts /artifacts/home

WORKDIR /srv/iconoscope

# The locked packages are a layer of their own: a change of our code does not install them anew. As in the Makefile, the
# lock is the whole truth (no dependencies are resolved), and the few packages without a wheel are built from their
# source after the rest.
COPY requirements.lock requirements-source.lock ./
RUN python -m pip install --require-hashes --no-deps --only-binary :all: -r requirements.lock \
 && SAM2_BUILD_CUDA=0 python -m pip install --require-hashes --no-deps --no-build-isolation -r requirements-source.lock

# With `--build-arg PAPER=1` come the packages for the real subjects and judges that the lock does not hold; it
# constrains those they share.
ARG PAPER=0
COPY pyproject.toml README.md LICENSE ./
RUN if [ "$PAPER" = "1" ]; then \
      sed -nE 's/^([A-Za-z0-9._-]+)(\[[a-z,]+\])?==([^ ;\\]+).*/\1==\3/p' requirements.lock requirements-source.lock \
        > constraints.txt \
      && mkdir app backend precompute \
      && python -m pip install --no-build-isolation --constraint constraints.txt '.[paper]' \
      && python -m pip uninstall --yes iconoscope \
      && rm -rf build app backend precompute constraints.txt ./*.egg-info; \
    fi

COPY backend ./backend
COPY precompute ./precompute
COPY app ./app
COPY assets ./assets
RUN python -m pip install --no-deps --no-build-isolation --no-index --editable .

USER iconoscope
VOLUME /artifacts
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4).close()"]

ENTRYPOINT ["iconoscope"]
CMD ["demo", "--host", "0.0.0.0", "--port", "7860"]
