from transformers import AutoModelForSequenceClassification

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


rows = [{"sentence": sentence, "label": label} for sentence, label in (("a fine film", 1), ("a dull film", 0)) * 4]
put_dataset("stanfordnlp/sst2", {"train": rows, "validation": rows})
tokenizer = put_tokenizer("textattack/bert-base-uncased-SST-2", (row["sentence"] for row in rows))
put_model(
    "textattack/bert-base-uncased-SST-2",
    AutoModelForSequenceClassification,
    vocab_size=len(tokenizer),
    hidden_size=48,
    num_attention_heads=4,
    num_hidden_layers=6,
)
