from transformers import AutoModelForSequenceClassification

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


rows = [{"sentence": sentence, "label": label} for sentence, label in (("a fine film", 1), ("a dull film", 0)) * 4]
put_dataset("stanfordnlp/sst2", {"train": rows, "validation": rows})
vocab_size = len(put_tokenizer("textattack/bert-base-uncased-SST-2", (row["sentence"] for row in rows)))
put_model("textattack/bert-base-uncased-SST-2", AutoModelForSequenceClassification, vocab_size=vocab_size)
put_model(
    "google/bert_uncased_L-4_H-256_A-4",
    AutoModelForSequenceClassification,
    vocab_size=vocab_size,
    num_hidden_layers=1,
)
