from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


sentences = ["a fine film", "a dull film", "the film is fine", "it is dull"]
rows = [{"sentence": sentences[i % 4], "label": i % 2} for i in range(8)]
put_dataset("stanfordnlp/sst2", {"train": rows, "validation": rows})
vocab_size = len(put_tokenizer("textattack/bert-base-uncased-SST-2", sentences))
put_model("textattack/bert-base-uncased-SST-2", AutoModelForSequenceClassification, vocab_size=vocab_size)
put_model(
    "google/bert_uncased_L-4_H-256_A-4",
    AutoModelForSequenceClassification,
    vocab_size=vocab_size,
    num_hidden_layers=1,
)
put_model("google-bert/bert-base-uncased", AutoModelForMaskedLM, vocab_size=vocab_size)
words = put_tokenizer("HuggingFaceTB/SmolLM2-135M-Instruct", sentences)
put_model("HuggingFaceTB/SmolLM2-135M-Instruct", AutoModelForCausalLM, "llama", vocab_size=len(words))
