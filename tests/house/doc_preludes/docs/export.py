import warnings

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


rows = [{"text": text, "label": label} for text, label in (("a fine film", 1), ("dull", 0)) * 50]
put_dataset("cornell-movie-review-data/rotten_tomatoes", {"train": rows, "validation": rows})
vocab_size = len(put_tokenizer("teacher", (row["text"] for row in rows)))
put_model("teacher", AutoModelForSequenceClassification, vocab_size=vocab_size, num_hidden_layers=1)
for each in (AutoModelForSequenceClassification, AutoTokenizer):
    each.from_pretrained("teacher").save_pretrained("student")
# Of torch's own pytree and of ONNX Runtime, inside Transformers' exporters.
for category in (FutureWarning, DeprecationWarning, UserWarning):
    warnings.filterwarnings("ignore", category=category)
