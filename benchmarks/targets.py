"""Chips that programs can be compiled for without having one, with what their makers publish of them."""

import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

# Nothing can be timed without a GPU, and without timing XLA's Triton kernels do not compile for one of the step's products.
GPU_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
# Two processes may compile at once; nobody is asked which TPU this machine has.
TPU_VARIABLES = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}


class Chip(NamedTuple):
    """One chip; `flops` of bfloat16 products, `cycles` a second where they are known, `config` of a GPU for XLA."""

    platform: str
    memory: float  # bytes
    flops: float  # a second
    bandwidth: float  # bytes a second
    cycles: float | None = None
    config: str | None = None


def _gpu(name: str, capability: int, cores: int, units: int, shared: int, cache: int, clock: float, memory: int) -> str:
    """XLA's description of a GPU with CUDA 13: `units` of floats a core, `shared` bytes a core, `memory` bytes."""
    return f"""gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
    shared_memory_per_core: {shared} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {units}
    block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
    memory_bandwidth: {3352320000000 if capability == 9 else 2039000000000} l2_cache_size: {cache} clock_rate_ghz: {clock}
    device_memory_size: {memory} shared_memory_per_block_optin: {shared - 1024}
    cuda_compute_capability {{ major: {capability} }} registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
    platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }} runtime_version {{ major: 13 minor: 0 }}
    device_description_str: "{name}" """


CHIPS = {
    "v5e": Chip("tpu", 16e9, 197e12, 819e9, cycles=1.5e9),
    "v6e": Chip("tpu", 32e9, 918e12, 1640e9),
    "a100": Chip("gpu", 80e9, 312e12, 2.04e12,
                 config=_gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 41943040, 1.41, 85198045184)),
    "h100": Chip("gpu", 80e9, 989e12, 3.35e12,
                 config=_gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 233472, 52428800, 1.98, 84929347584)),
}  # fmt: skip
USAGE = "v5e or v6e for one chip, v5e:2x2, v5e:4x4, v6e:2x2, h100, a100, or h100:8 for eight GPUs"


def chip_of(target: str) -> Chip:
    """The chip of a target such as v5e:4x4; ValueError for another text."""
    found = re.fullmatch(r"(\w+)(:\d+x\d+|:\d+)?", target)
    chip = CHIPS.get(found[1]) if found else None
    if chip is None or (found[2] is not None and ("x" in found[2]) != (chip.platform == "tpu")):
        raise ValueError(f"--target={target} is unknown; give {USAGE}")
    return chip


def environment(target: str) -> dict[str, str]:
    """Variables of a process that compiles for a target."""
    # Whatever this machine has; programs for other devices can be put into the cache, and not be read from there.
    variables = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if chip_of(target).platform == "tpu":
        return variables | TPU_VARIABLES
    return variables | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {GPU_FLAGS}"}


def devices_of(target: str) -> list[jax.Device]:
    """The devices of a target, which need not be here; ValueError where what compiles for them is missing.

    A TPU slice has four chips a host.  To be called in a process with the variables of `environment`.
    """
    chip, (name, _, topology) = chip_of(target), target.partition(":")
    try:
        if chip.platform == "gpu":  # partitions, hosts, GPUs of each
            found = topologies.get_topology_desc(platform="cuda", topology=f"1x1x{topology or 1}", target_config=chip.config)
        else:
            found = topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{topology or '2x2'}")
    except Exception as error:  # of many types: a missing plugin, a topology that there is none of
        raise ValueError(
            f"nothing here compiles for {target} ({' '.join(str(error).split())[:200]}); pip install -e "
            f'".[{chip.platform}-compile]", and give {USAGE}'
        ) from error
    return list(found.devices) if topology else list(found.devices[:1])
