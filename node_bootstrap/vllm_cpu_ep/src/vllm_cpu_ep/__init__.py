"""A vLLM plugin: Mixture-of-Experts data parallelism with expert parallelism on the CPU platform.

What vLLM 0.32 lacks there, and what `register` puts in its place:

* `CpuCommunicator` has neither all_gatherv nor reduce_scatterv, which every MoE layer calls when
  data parallel > 1 (NotImplementedError at the first request): `collectives`.
* The unquantized expert kernels are given expert numbers of the whole model but hold this rank's
  experts only (they read past the end of the weights): `experts`.
* AMX tiles are used before Linux was asked for them (illegal instruction if the first forward is a
  decode): `register`.
* NIXL's progress thread polls without a pause, one core per engine: `nixl`.
* Engine processes are spawned even where VLLM_WORKER_MULTIPROC_METHOD asks for fork, which halves
  the processor time of a start: `start_method`.
"""

# pyright: reportMissingImports=false
# (vLLM and PyTorch are the serving environment's, not the checkout's)

from __future__ import annotations

from vllm_cpu_ep import collectives, compatibility, experts, nixl, start_method

__all__ = ["register"]


def register() -> None:
    """Entry point of vLLM's general plugins: nothing on other platforms than CPU; safe to repeat.

    Raises:
        compatibility.UnsupportedVllmError: the corrections weren't made for this vLLM.
        ValueError: VLLM_NIXL_PTHR_DELAY_US isn't a number of microseconds.
    """
    nixl.apply_progress_delay()
    # Imported here: vLLM imports this package while its own platform is still being chosen.
    import torch  # noqa: PLC0415
    from vllm.logger import init_logger  # noqa: PLC0415
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return
    compatibility.check()
    # PyTorch has no public names for these two.
    if torch.cpu._is_amx_tile_supported():  # noqa: SLF001
        torch.cpu._init_amx()  # noqa: SLF001
    changed = collectives.install() + experts.install() + start_method.install()
    if changed:
        init_logger("vllm.vllm_cpu_ep").info("vllm_cpu_ep: %s", ", ".join(changed))
