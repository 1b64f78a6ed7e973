from transformers import AutoModelForSequenceClassification

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


rows = [{"sentence": text, "label": label} for text, label in (("a fine film", 1), ("a dull film", 0))] * 4
put_dataset("nyu-mll/glue", {"train": rows, "validation": rows}, config="sst2")
for model_id in ("you/student", "you/teacher", "you/student-on-labels-alone"):
    tokenizer = put_tokenizer(model_id, (row["sentence"] for row in rows))
    put_model(model_id, AutoModelForSequenceClassification, vocab_size=len(tokenizer))
