"""Small random encoders in folders, of the kinds that the learned metrics load."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

transformers.utils.logging.disable_progress_bar()

TEXT = "a an the red green dog dogs cat man sofa couch sits on two with hat walking street"
WORDS = TEXT.split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tiny_bert(folder: Path, seed: int = 0, layers: int = 3) -> Path:
    folder.mkdir(parents=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    _spread(transformers.BertModel(config)).save_pretrained(folder)
    return folder


def tiny_roberta(folder: Path, seed: int = 0) -> Path:
    _byte_pairs(folder, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<s>", "<pad>", "</s>"])
    tokenizer = transformers.RobertaTokenizer.from_pretrained(folder, model_max_length=38)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        type_vocab_size=1,
        pad_token_id=1,
    )
    _spread(transformers.RobertaModel(config)).save_pretrained(folder)
    return folder


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    special = ["<|startoftext|>", "<|endoftext|>"]
    _byte_pairs(folder, pre_tokenizers.ByteLevel(), special, suffix="</w>")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=20)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size)
    processor.save_pretrained(folder)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = shape | {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "max_position_embeddings": 20,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shape | {"hidden_size": 24, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    _spread(transformers.CLIPModel(config)).save_pretrained(folder)
    return folder


def _byte_pairs(folder, before, special, suffix=None):
    """Write a vocabulary and merges of byte pairs, learned from a few words."""
    folder.mkdir(parents=True)
    options = {} if suffix is None else {"end_of_word_suffix": suffix}
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer, tokenizer.decoder = before, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, "<unk>", "<mask>"],
        initial_alphabet=alphabet,
        show_progress=False,
        **options,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def _spread(model):
    """Draw weights large enough that different inputs get different outputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model
