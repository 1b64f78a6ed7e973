"""A teacher and a data set on disk for each task that a whole job can be made of."""

import numpy as np
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Picture

from hf_distill.processing import TASKS
from tests.house.local_hub import put_model, put_tokenizer


WORDS = ("fine", "dull", "film", "play", "the", "a", "was", "very", "not", "quite")
SIZES = {"num_hidden_layers": 3, "max_position_embeddings": 64}


def sentences(count, seed=0):
    """Sentences of known words, and whether each has the first word."""
    generator = np.random.default_rng(seed)
    rows = [list(generator.choice(WORDS, size=int(generator.integers(3, 9)))) for _ in range(count)]
    return [" ".join(row) for row in rows], [int("fine" in row) for row in rows]


def rows_of(task, count=24, seed=0):
    """Rows of a task, in columns that data sets of it use."""
    texts, classes = sentences(count, seed)
    if task == "text-classification":
        features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
        return Dataset.from_dict({"sentence": texts, "label": classes}, features=features)
    if task == "token-classification":
        words = [text.split() for text in texts]
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "ART"]))})
        tags = [[int(word in ("a", "the")) for word in row] for row in words]
        return Dataset.from_dict({"tokens": words, "ner_tags": tags}, features=features)
    if task == "question-answering":
        answers = [{"text": [text.split()[-1]], "answer_start": [text.rindex(" ") + 1]} for text in texts]
        return Dataset.from_dict({"question": ["what film"] * count, "context": texts, "answers": answers})
    if task == "image-classification":
        generator = np.random.default_rng(seed)
        pixels = [generator.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(count)]
        data = {"img": [Picture.fromarray(each) for each in pixels], "label": classes}
        return Dataset.from_dict(
            data, features=Features({"img": Image(), "label": ClassLabel(names=["dark", "light"])})
        )
    if task == "audio-classification":
        generator = np.random.default_rng(seed)
        waves = [generator.integers(-1000, 1000, 200 + 8 * row).tolist() for row in range(count)]
        return Dataset.from_dict({"audio": waves, "label": classes})
    if task == "text2text-generation":
        return Dataset.from_dict({"document": texts, "summary": [text.split()[0] for text in texts]})
    return Dataset.from_dict({"text": texts})


def put_teacher(folder, task):
    """A model with random weights and what reads for it."""
    auto_class = getattr(transformers, TASKS[task].auto_class)
    if task == "image-classification":
        transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
        classes = {"id2label": {0: "dark", 1: "light"}, "label2id": {"dark": 0, "light": 1}}
        return put_model(folder, auto_class, "vit", image_size=8, patch_size=4, num_hidden_layers=3, **classes)
    if task == "audio-classification":
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True).save_pretrained(folder)
        convolutions = {"conv_dim": (8, 8), "conv_kernel": (4, 2), "conv_stride": (2, 2), "feat_extract_norm": "layer"}
        places = {"num_conv_pos_embeddings": 3, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}
        sizes = {"num_hidden_layers": 3, "classifier_proj_size": 8, "mask_time_prob": 0.0, "num_labels": 2}
        return put_model(folder, auto_class, "wav2vec2", **convolutions, **places, **sizes)
    tokenizer = put_tokenizer(folder, [" ".join((*WORDS, "what"))])
    if task == "text2text-generation":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2}
        ids = {"pad_token_id": 0, "decoder_start_token_id": 0}
        return put_model(folder, auto_class, "t5", vocab_size=len(tokenizer), **sizes, **ids)
    if task == "text-generation":
        return put_model(folder, auto_class, "llama", vocab_size=len(tokenizer), **SIZES)
    names = {"text-classification": ("bad", "good"), "token-classification": ("O", "ART")}.get(task)
    classes = (
        {} if names is None else {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    )
    return put_model(folder, auto_class, "bert", vocab_size=len(tokenizer), **SIZES, **classes)


def put_job(folder, task):
    """A teacher in `teacher` and data in `data` below the folder, as words of a command."""
    teacher = folder / "teacher"
    put_teacher(teacher, task)
    transformers.set_seed(0)
    DatasetDict(train=rows_of(task), validation=rows_of(task, 12, seed=1)).save_to_disk(folder / "data")
    words = ["--teacher", str(teacher), "--dataset", str(folder / "data")]
    return words + (["--sampling_rate", "8000"] if task == "audio-classification" else [])


QUICK = (
    *("--max_steps", "4", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3"),
    *("--use_cpu", "--disable_tqdm", "true", "--dataloader_pin_memory", "false"),
)
"""A training of a moment."""
