import os

from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.house.local_hub import put_dataset, put_model, put_tokenizer
from tests.teachers.completions_server import CompletionsServer
from tests.teachers.embeddings_server import EmbeddingsServer


questions = ["who sat on the mat", "what did the dog do", "is it late", "where is the cat"]
answers = ["the cat sat on the mat", "the dog slept", "it is noon", "the cat is out"]
rows = [{"question": questions[i % 4], "sentence": answers[i // 2], "label": i % 2} for i in range(8)]
put_dataset("nyu-mll/glue", {"train": rows, "validation": rows}, config="qnli")

tokenizer = put_tokenizer("google-bert/bert-base-uncased", [*questions, *answers, "a fine film"])
put_model("google/bert_uncased_L-4_H-256_A-4", AutoModel, vocab_size=len(tokenizer))
os.environ["EMBEDDINGS_URL"] = EmbeddingsServer(width=24).__enter__().url
for model_id, texts in {
    "textattack/bert-base-uncased-QNLI": questions + answers,
    "distilbert/distilroberta-base": [*questions, *answers, "another word"],
}.items():
    tokenizer = put_tokenizer(model_id, texts)
    put_model(model_id, AutoModelForSequenceClassification, vocab_size=len(tokenizer))

put_dataset("roneneldan/TinyStories", {"train": [{"text": text} for text in questions + answers]})
for model_id, texts in {"google/gemma-2-2b": answers, "Qwen/Qwen3-0.6B-Base": questions}.items():
    tokenizer = put_tokenizer(model_id, texts)
    put_model(model_id, AutoModelForCausalLM, "llama", vocab_size=len(tokenizer))

server = CompletionsServer(  # until the page has run
    AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B-Base"), tokenizer, max_logprobs=64, name="Qwen/Qwen3-8B-Base"
)
os.environ["TEACHER_URL"] = server.__enter__().url
