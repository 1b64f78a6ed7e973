"""Speech to text as Distil-Whisper does it: the teacher's encoder, few layers of its decoder, and no transcripts.

The student is a copy of the teacher with a shorter decoder. The frozen encoder is the teacher's own, so it runs once
for both. The teacher writes down what it hears, and the student learns from these transcripts and from how sure the
teacher was of each letter. On its own the same copy learns from the few recordings that somebody has written
down; so does one with random weights ("scratch"), which tells what the encoder alone is worth.

Without arguments it needs no network, and listens to words that are synthesised here:

    python examples/distill_transcriber.py

With recordings, on disk or from the Hub, and any Whisper:

    python examples/distill_transcriber.py --dataset PolyAI/minds14 --dataset_config en-US \
        --audio_column audio --text_column transcription \
        --teacher openai/whisper-tiny.en --student_learning_rate 1e-4 --batch_size 8
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from comparison import Comparison, ExampleArguments
from datasets import Audio, ClassLabel, Dataset, load_dataset
from scipy.signal import resample_poly
from spoken_words import SAMPLING_RATE, spoken_words
from tokenizers import Tokenizer, decoders, models, processors
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoProcessor,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    set_seed,
)

from hf_distill import recipes, share_encoder, student_from_teacher


@dataclass
class JobArguments(ExampleArguments):
    """What the example works on. The defaults finish in two minutes on one core."""

    dataset: str | None = field(
        default=None, metadata={"help": "Recordings by Hub id or path; synthesised words if left out."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "The configuration of that data set."})
    audio_column: str = field(default="audio", metadata={"help": "Its column of recordings, or of bare samples."})
    text_column: str = field(default="text", metadata={"help": "Its column of transcripts, or of classes."})
    teacher: str | None = field(
        default=None, metadata={"help": "A Whisper by Hub id or path; trained here if left out."}
    )
    labelled_rows: int = field(default=72, metadata={"help": "Recordings whose transcripts the student may see."})
    steps: int = field(default=500, metadata={"help": "Of the teacher and of each student."})
    teacher_learning_rate: float = 1e-3
    student_learning_rate: float = 2e-3
    decoder_layers: int = field(default=1, metadata={"help": "Of the student."})
    seconds: int = field(default=1, metadata={"help": "That a teacher trained here listens; what is longer is cut."})


def recordings(job: JobArguments) -> tuple[Dataset, Dataset]:
    """Waves and transcripts to train on, and to measure on."""
    if job.dataset is None:
        texts, waves = spoken_words(500 if job.smoke else 3000, seed=0)
        rows = Dataset.from_dict({"wave": waves, "text": texts})
        splits = rows.train_test_split(test_size=0.1, seed=0)
        return splits["train"], splits["test"]
    splits = load_dataset(job.dataset, job.dataset_config)
    if len(splits) == 1:
        splits = splits["train"].train_test_split(test_size=0.1, seed=0)
    measured = next(name for name in ("validation", "test") if name in splits)
    train, test = (heard(splits[name].shuffle(seed=0), job) for name in ("train", measured))
    return train, test


def heard(rows: Dataset, job: JobArguments) -> Dataset:
    """The recordings of a data set at one sampling rate, as waves between −1 and 1."""
    if job.smoke:
        rows = rows.select(range(min(len(rows), 200)))
    if isinstance(rows.features[job.audio_column], Audio):
        rows = rows.cast_column(job.audio_column, Audio(sampling_rate=SAMPLING_RATE))
        waves = [recording["array"] for recording in rows[job.audio_column]]
    else:  # samples of 16 bits, with their rate beside them
        pairs = zip(rows[job.audio_column], rows["sampling_rate"], strict=True)
        waves = [resample_poly(np.asarray(samples) / 2**15, SAMPLING_RATE, rate) for samples, rate in pairs]
    feature = rows.features[job.text_column]
    texts = rows[job.text_column]
    texts = feature.int2str(texts) if isinstance(feature, ClassLabel) else texts
    return Dataset.from_dict({"wave": [np.float32(wave) for wave in waves], "text": texts})


def letter_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """A token for each letter."""
    special = ["<pad>", "<start>", "<end>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(set("".join(texts)))])}
    letters = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    letters.decoder = decoders.Fuse()
    ends = [(token, vocabulary[token]) for token in ("<start>", "<end>")]
    letters.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=letters, **names)


def listener(tokenizer: PreTrainedTokenizerBase, mels: int, seconds: int) -> PreTrainedModel:
    """A small Whisper with random weights."""
    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            num_mel_bins=mels,
            d_model=64,
            encoder_layers=2,
            decoder_layers=4,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_source_positions=50 * seconds,
            max_target_positions=64,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.bos_token_id,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )


def encoded(rows: Dataset, extractor: Any, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """What a Whisper hears, and what it should write: the start token is put before it by the model."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        waves = [np.asarray(wave, dtype=np.float32) for wave in batch["wave"]]
        features = extractor(waves, sampling_rate=SAMPLING_RATE, return_tensors="np")["input_features"]
        return {"input_features": list(features), "labels": [ids[1:] for ids in tokenizer(batch["text"])["input_ids"]]}

    return rows.map(encode, batched=True, batch_size=64, remove_columns=rows.column_names).with_format("torch")


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    labels = pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100)
    return {"input_features": torch.stack([row["input_features"] for row in rows]), "labels": labels}


@torch.inference_mode()
def transcribed(rows: Dataset, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The same recordings with the teacher's transcripts in place of anybody else's."""
    teacher.eval()

    def transcribe(batch: dict[str, Any]) -> dict[str, list[list[int]]]:
        features = torch.stack(list(batch["input_features"])).to(teacher.device)
        texts = tokenizer.batch_decode(teacher.generate(features), skip_special_tokens=True)
        return {"labels": [ids[1:] for ids in tokenizer(texts)["input_ids"]]}

    return rows.map(transcribe, batched=True, batch_size=64)


def best_tokens(outputs: Any, labels: Tensor) -> Tensor:
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits.argmax(-1)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """The share of recordings that are written without a mistake.

    If the best token after every true beginning is the true one, then the model writes just that, token by token.
    """
    right = (prediction.predictions == prediction.label_ids) | (prediction.label_ids == -100)
    return {"accuracy": float(right.all(axis=-1).mean())}


def main(job: JobArguments) -> None:
    train, test = recordings(job)
    if job.teacher is None:
        extractor: Any = WhisperFeatureExtractor(feature_size=40, chunk_length=job.seconds)
        tokenizer = letter_tokenizer(train["text"])
    else:
        processor: Any = AutoProcessor.from_pretrained(job.teacher)
        extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    rows, measured = (encoded(part, extractor, tokenizer) for part in (train, test))
    how = {"data_collator": padded, "compute_metrics": accuracy, "preprocess_logits_for_metrics": best_tokens}
    comparison = Comparison(job, measured, "eval_accuracy", how)

    set_seed(job.seed)
    if job.teacher is None:
        teacher = listener(tokenizer, extractor.feature_size, job.seconds)
        comparison.trained("teacher", teacher, rows, job.teacher_learning_rate)
    else:
        teacher = WhisperForConditionalGeneration.from_pretrained(job.teacher)

    def student() -> PreTrainedModel:
        shorter = student_from_teacher(teacher, num_hidden_layers={"decoder": job.decoder_layers})
        return share_encoder(shorter, teacher)

    labelled = rows.select(range(min(job.labelled_rows, len(rows))))
    scratch = WhisperForConditionalGeneration(student().config)
    comparison.trained("scratch", scratch, labelled, job.student_learning_rate)
    comparison.trained("student", student(), labelled, job.student_learning_rate)
    pseudo_labelled = transcribed(rows, teacher, tokenizer)
    comparison.trained(
        "distilled", student(), pseudo_labelled, job.student_learning_rate, teacher, recipes.distil_whisper()
    )
    comparison.save()


if __name__ == "__main__":
    main(*HfArgumentParser(JobArguments).parse_args_into_dataclasses())
