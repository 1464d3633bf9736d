"""What tests of several packages share: a tiny causal language model."""

import string

import pytest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random two-layer Llama that reads and writes letter by letter."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("models") / "llama"
    signs = ["<unk>", "<end>", *string.ascii_letters, *string.digits, *" .,:;?&%/-\n"]
    spelling = Tokenizer(models.WordLevel({s: i for i, s in enumerate(signs)}, unk_token="<unk>"))
    spelling.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    spelling.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=spelling, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=len(signs), **sizes, **heads, eos_token_id=1, pad_token_id=1, bos_token_id=None
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return str(directory)
