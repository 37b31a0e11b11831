"""Run by the runtime's Python: writes a tiny Qwen3-MoE with random weights and its own tokenizer.

usage: tiny_model.py CORPUS FOLDER

The bytes depend on nothing but this file, the corpus, and the versions in the lock: random numbers
come from PCG64 as integers (PyTorch's normal distribution differs between instruction sets).
"""

# pyright: reportMissingImports=false
# (its imports are the runtime's, not this environment's)

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 20240229
VOCABULARY = 1024
HIDDEN = 128
LAYERS = 2
EXPERTS = 8
EXPERTS_PER_TOKEN = 2
EXPERT_HIDDEN = 128
HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 32
CONTEXT_TOKENS = 4096

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Greedy text must depend on the context and not settle on one token, or comparing texts shows
# nothing: layers add as much as the embedding brings, and a sharp output layer keeps the best token
# clear of the second by more than rounding. Measured in the tests.
LAYER_GAIN = 1.0
ROUTER_GAIN = 2.0
LOGIT_GAIN = 4.0


def tokenizer(corpus: str) -> Tokenizer:
    """Byte-level BPE with VOCABULARY entries, the special ones first."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([corpus], trainer)
    if made.get_vocab_size() != VOCABULARY:
        sys.exit(
            f"the corpus is too short: {made.get_vocab_size()} of {VOCABULARY} vocabulary entries"
        )
    return made


def config() -> dict[str, Any]:
    """config.json."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "decoder_sparse_step": 1,
        "eos_token_id": SPECIAL.index(TURN_END),
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 4 * HIDDEN,
        "max_position_embeddings": CONTEXT_TOKENS,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": EXPERT_HIDDEN,
        "norm_topk_prob": True,
        "num_attention_heads": HEADS,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "output_router_logits": False,
        "pad_token_id": SPECIAL.index(END_OF_TEXT),
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "rope_theta": 10000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json."""
    return {
        "add_prefix_space": False,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": CONTEXT_TOKENS,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def weights(sayable: list[bool]) -> dict[str, torch.Tensor]:
    """All tensors under the names of published Qwen3-MoE checkpoints, bfloat16.

    Args:
        sayable: per token whether the model may say it; the others' logits are 0, which is never
            the best.
    """
    source = np.random.Generator(np.random.PCG64(SEED))

    def matrix(out_size: int, in_size: int, gain: float = LAYER_GAIN) -> torch.Tensor:
        # Uniform with standard deviation gain/√in: multiplying an integer is exact on every
        # machine.
        numbers = source.integers(-(2**20), 2**20, size=(out_size, in_size)).astype(np.float64)
        scale = gain * (3.0 / in_size) ** 0.5 / 2**20
        return torch.from_numpy(numbers * scale).to(torch.bfloat16)

    ones = {size: torch.ones(size, dtype=torch.bfloat16) for size in (HIDDEN, HEAD_SIZE)}
    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN, gain=HIDDEN**0.5)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{norm}.weight"] = ones[HIDDEN].clone()
        for norm in ("q_norm", "k_norm"):
            tensors[f"{at}.self_attn.{norm}.weight"] = 2 * ones[HEAD_SIZE]
        for part, size in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            tensors[f"{at}.self_attn.{part}_proj.weight"] = matrix(size * HEAD_SIZE, HIDDEN)
        tensors[f"{at}.self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD_SIZE, 2 * LAYER_GAIN)
        tensors[f"{at}.mlp.gate.weight"] = matrix(EXPERTS, HIDDEN, ROUTER_GAIN)
        for expert in range(EXPERTS):
            here = f"{at}.mlp.experts.{expert}"
            tensors[f"{here}.gate_proj.weight"] = matrix(EXPERT_HIDDEN, HIDDEN, 2 * LAYER_GAIN)
            tensors[f"{here}.up_proj.weight"] = matrix(EXPERT_HIDDEN, HIDDEN, 2 * LAYER_GAIN)
            tensors[f"{here}.down_proj.weight"] = matrix(HIDDEN, EXPERT_HIDDEN)
    tensors["model.norm.weight"] = ones[HIDDEN].clone()
    head = matrix(VOCABULARY, HIDDEN, LOGIT_GAIN)
    head[~torch.tensor(sayable)] = 0
    tensors["lm_head.weight"] = head
    return tensors


def sayable_tokens(made: Tokenizer) -> list[bool]:
    """Which tokens are printable ASCII, so that every generated text is readable."""
    texts = [made.decode([token], skip_special_tokens=False) for token in range(VOCABULARY)]
    return [
        token >= len(SPECIAL)
        and bool(text)
        and text.isascii()
        and text.replace("\n", " ").isprintable()
        for token, text in enumerate(texts)
    ]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """JSON as the Hub's files have it."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Write the folder."""
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    made = tokenizer(corpus.read_text(encoding="utf-8"))
    made.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    write_json(folder / "config.json", config())
    ends = [SPECIAL.index(TURN_END), SPECIAL.index(END_OF_TEXT)]
    write_json(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})
    save_file(
        weights(sayable_tokens(made)), folder / "model.safetensors", metadata={"format": "pt"}
    )


if __name__ == "__main__":
    main()
