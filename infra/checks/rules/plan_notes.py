"""What the plan left out or chose otherwise than asked: its notes, made findings of."""

from __future__ import annotations

from infra.checks.finding import Severity
from infra.checks.rules.all2all_choice import note_rule

RULES = (
    note_rule(
        "OPTION_NOT_IN_RELEASE",
        Severity.WARNING,
        "",
        fact="The release has no flag for an option of the settings.",
        consequence="What the option was to do isn't done",
        remedy="drop the option, or take a release that has it",
        source="vllm/engine/arg_utils.py of 24 releases",
        example="`numa_bind: true` with vLLM 0.18.1: it came with 0.20.",
    ),
    note_rule(
        "KV_CONNECTOR_NOT_IN_RELEASE",
        Severity.ERROR,
        "kv_transfer.kv_connector",
        fact="The release doesn't have the connector.",
        consequence="vLLM stops at start: unsupported connector type",
        remedy="kv_connector: NixlConnector",
        source="vllm kv_connector/factory.py@0.24.0",
        example="`kv_transfer: {kv_connector: NixlPushConnector}` with vLLM 0.22.1.",
    ),
    note_rule(
        "KV_TRANSFER_OPTION_NOT_IN_RELEASE",
        Severity.WARNING,
        "kv_transfer",
        fact="The release has no field for an option of kv_transfer.",
        consequence="What the option was to do isn't done: a lost transfer, say, ends otherwise",
        remedy="drop the option, or take a release that has it",
        source="vllm/config/kv_transfer.py@0.13.0; kv_connector/v1/nixl_connector.py@0.12.0",
        example="`kv_transfer: {kv_load_failure_policy: fail}` with vLLM 0.12.0.",
    ),
    note_rule(
        "KV_TRANSFER_UNUSED",
        Severity.WARNING,
        "kv_transfer",
        fact="A group that serves both phases has settings of KV transfer.",
        consequence="They have no effect: the group hands no KV over",
        remedy="drop kv_transfer, or give the group the role prefill or decode",
        source="infra/plan/kv_transfer.py: a group of role serve has no connector",
        example="`kv_transfer: {backends: [UCX]}` in a group without a role.",
    ),
    note_rule(
        "MODEL_CONFIG_NOT_COVERED",
        Severity.WARNING,
        "model.config",
        fact="The model's config.json has a form or a gap that no memory rule covers.",
        consequence="Memory is not planned: vLLM finds out at its first start, in paid time",
        remedy="give a whole config.json as model.config",
        source="infra/catalog/models.py: the forms of config.json that are known",
        example="A config.json with `compress_ratios` (compressed KV) on p5en.48xlarge.",
        scope="stack",
    ),
)
